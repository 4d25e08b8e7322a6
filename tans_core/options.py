"""Options of requests, and functions that take them as plain keywords: declared once for API, command and flows."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field
from pydantic.fields import FieldInfo

from tans_core.errors import ParamsError, did_you_mean
from tans_core.retrieval.candidate import REFINED, Prefer
from tans_core.retrieval.constraints import Constraints, Options

_Result = TypeVar("_Result")

_Refine = Annotated[int, Field(ge=0, json_schema_extra={"metavar": "K"})]
_Count = Annotated[int | None, Field(ge=1)]
GROUP_HELP = (
    "Keep images with the same value in this column of a table in one split, such as those of a patient; `folder`: "
    "images of the same folder below a class; `none`: no grouping. By default a column of a usual name is taken."
)
_Group = Annotated[str | None, Field(description=GROUP_HELP, json_schema_extra={"metavar": "COLUMN"})]


class RetrieveOptions(Constraints):
    """Options of `retrieve`."""

    top_k: Annotated[_Count, Field(description="How many networks at most; by default as in params.yaml.")] = None
    refine: Annotated[
        _Refine,
        Field(description="Run the first K on the images, and rank all again by the results; 0 runs none."),
    ] = 0
    prefer: Annotated[
        Prefer,
        Field(
            description="`small` and `fast` leave out networks that another one equals or beats in score and in "
            "parameters, or in latency under the profile (without a profile: MACs). Those whose score is within the "
            "interval of the best come first, the cheapest ahead.",
        ),
    ] = "accurate"
    per_task: Annotated[_Count, Field(description="How many networks of one home task at most; all by default.")] = None
    group: _Group = None

    def check_query(self) -> None:
        """Raise ParamsError for options that need images, which a query has none of."""
        if self.group is not None:
            raise ParamsError("--group: a query file holds no images to group. Leave it out.")
        if self.refine:
            no_images = "a query file holds no images, so no network can be run on them"
            raise ParamsError(f"--refine {self.refine}: {no_images}. Leave it out, or give the images.")


class FinetuneOptions(Constraints):
    """Options of `finetune`."""

    model: Annotated[
        str | None,
        Field(
            description="The network to start from, by its id; by default one is retrieved within the limits.",
            json_schema_extra={"metavar": "ID", "positional": True},
        ),
    ] = None
    rank: Annotated[int, Field(ge=1, description="The network of this rank in the retrieval.")] = 1
    top_k: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Train so many networks of the retrieval for a part of their runs; the better half goes on, "
            "until one is left.",
        ),
    ] = 1
    budget: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9]+(\.[0-9]+)?[smh]$",
            description="Time for all runs together, such as 90s, 10m or 1h: networks whose run does not fit are left "
            "out. It goes with more than one network. No limit by default.",
            json_schema_extra={"metavar": "TIME"},
        ),
    ] = None
    refine: Annotated[
        _Refine,
        Field(
            description="Run the first K of the retrieval on the images, as `retrieve` does, before one is taken; 0 "
            "runs none."
        ),
    ] = REFINED
    epochs: Annotated[_Count, Field(description="How many epochs; by default as in params.yaml.")] = None
    max_images: Annotated[_Count, Field(description="Open at most so many files of a path, evenly over classes.")] = (
        None
    )
    weigh_classes: Annotated[
        bool, Field(description="Let classes count the same in the loss, however many images they have.")
    ] = False
    seed: Annotated[
        int,
        Field(ge=0, lt=2**63, description="Seed of the new classifier, the order of images and the augmentation."),
    ] = 0
    group: _Group = None

    @classmethod
    def read(cls, **values: Any) -> FinetuneOptions:
        options = super().read(**values)
        choosing = sorted({*Constraints.model_fields, "rank", "top_k", "refine"} & options.model_fields_set)
        changed = [name for name in choosing if getattr(options, name) != cls.model_fields[name].default]
        if options.model is not None and changed:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise ParamsError(f"--model names the network already. Leave out --model, or {flags}.")
        if options.top_k > 1 and options.rank > 1:
            raise ParamsError("--rank takes one network, --top-k several. Leave out one of them.")
        if options.top_k == 1 and options.budget is not None:
            raise ParamsError("--budget chooses among several networks. Add --top-k, such as --top-k 4.")
        if options.budget_s <= 0:
            raise ParamsError(f"--budget: got {options.budget}, want more than no time, such as 10m.")
        return options

    @property
    def budget_s(self) -> float:
        """The budget in seconds; infinite without one."""
        if self.budget is None:
            return math.inf
        return float(self.budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.budget[-1]]


def takes(options: type[Options], command: bool = False) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]:
    """Let a function take the fields of a model as keywords in place of its parameter `options`.

    `help`, Prefect's forms and typer read the new function's signature. `{options}` in its docstring becomes one line
    per field.

    Args:
        options: the model; its `read` checks the arguments.
        command: annotate the fields for typer.
    """

    def decorate(function: Callable[..., _Result]) -> Callable[..., _Result]:
        hints = typing.get_type_hints(function, include_extras=True) if command else {}
        own = inspect.signature(function).parameters
        fields = {name: _parameter(name, field, command) for name, field in options.model_fields.items()}
        kept = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in own.values() if p.name != "options"]
        if command:  # `--help` lists the fields before the options that every command has
            kept = [p if p.default is p.empty else p.replace(kind=p.KEYWORD_ONLY) for p in kept]
        leading = [p for p in kept if p.kind is not p.KEYWORD_ONLY]
        trailing = [p for p in kept if p.kind is p.KEYWORD_ONLY]
        ordered = sorted(fields.values(), key=lambda p: p.kind)
        signature = inspect.signature(function).replace(parameters=[*leading, *ordered, *trailing])

        def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
            for name in kwargs.keys() - signature.parameters.keys():
                raise ParamsError(f"{name}: no such option{did_you_mean(name, signature.parameters)}.")
            bound = signature.bind(*args, **kwargs).arguments
            values = {name: bound.pop(name) for name in fields if name in bound}
            return {**bound, "options": options.read(**values)}

        async def waiting(*args: Any, **kwargs: Any) -> Any:
            return await function(**arguments(args, kwargs))  # type: ignore[misc]

        def plain(*args: Any, **kwargs: Any) -> Any:
            return function(**arguments(args, kwargs))

        wrapped: Any = waiting if inspect.iscoroutinefunction(function) else plain
        for name in ("__module__", "__name__", "__qualname__"):
            setattr(wrapped, name, getattr(function, name))
        wrapped.__signature__ = signature
        wrapped.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
        lines = "\n        ".join(f"{name}: {field.description}" for name, field in options.model_fields.items())
        wrapped.__doc__ = (function.__doc__ or "").replace("{options}", lines)
        return cast("Callable[..., _Result]", wrapped)

    return decorate


def _parameter(name: str, field: FieldInfo, command: bool) -> inspect.Parameter:
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if extra.get("positional") else inspect.Parameter.KEYWORD_ONLY
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    if command:
        annotation = _typer(name, field, extra)
        kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=field.default, annotation=annotation)


def _typer(name: str, field: FieldInfo, extra: dict[str, Any]) -> Any:
    import typer

    least = next((bound for one in field.metadata for bound in (getattr(one, "ge", None),) if bound is not None), None)
    kind: Any = list[str] | None if field.annotation == tuple[str, ...] | None else field.annotation
    option = extra.get("option", "--" + name.replace("_", "-"))
    metavar = extra.get("metavar", "M" if name.endswith("_m") else None)
    return Annotated[kind, typer.Option(option, min=least, metavar=metavar, help=field.description)]
