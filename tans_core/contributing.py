"""Hands a fine-tuned network to the inbox, so that the zoo grows by use."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tans_core.errors import ParamsError, WeightsError
from tans_core.project import find_root, find_task_folder

if TYPE_CHECKING:
    from tans_core.licences import Licence
    from tans_core.zoo.card import Ancestor, ModelCard


def contribute(
    run: str | Path,
    *,
    licence: str | None = None,
    terms: str | Path | None = None,
    name: str | None = None,
    root: str | Path | None = None,
) -> Path:
    """Copy a fine-tuned network to the inbox. The next `zoo-refresh`, or `admit`, checks and serves it.

    Its card names everything that its weights descend from: what its start descends from, and the images that it was
    tuned on, under the licence given here. The run stays as it is.

    Args:
        run: the folder of a fine-tuning, or its name below `runs/`.
        licence: of the images: an SPDX expression, or words, which are kept. Needed unless the images are a task whose
            licence is known.
        terms: a file with the text of the licence, where that is a `LicenseRef-` name.
        name: of the data set, the new network's home task; by default the folder's or task's name.
        root: the project's folder; None takes the nearest one that holds params.yaml, from here upwards.

    Returns:
        The entry of the inbox. One that the same run made before is replaced.

    Raises:
        ParamsError: the licence is missing, or not that of the task; its terms are missing; or another task of the
            project has the name.
        WeightsError: there is no such run, or admission would refuse its card.
        StoreError: the inbox is not writable.
    """
    from tans_core.io import atomic_folder, read_json, write_json
    from tans_core.locks import inbox_lock
    from tans_core.zoo.admission import CARD_FILE, WEIGHTS_FILE, card_problems
    from tans_core.zoo.card import ModelCard

    project = find_root(root)
    folder = _run_folder(run, project)
    try:
        card = ModelCard.from_dict(read_json(folder / CARD_FILE))
        images = _images(card)
        dataset = read_json(folder / "params.json")["dataset"]
        start = str(read_json(folder / "provenance.json")["model_licence"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(
            f"{folder}: not a complete fine-tuning ({type(error).__name__}: {error}). Run `tans finetune` again."
        ) from error
    stated = _licence(images, licence, terms, card.licences.texts)
    new_name = name or card.home_task
    is_task = dataset == card.home_task and find_task_folder(project, dataset) is not None
    if is_task and new_name != dataset:
        raise ParamsError(f"name {new_name!r}: the images are the task {dataset!r}. Leave out --name.")
    if not is_task and find_task_folder(project, new_name) is not None:
        raise ParamsError(
            f"name {new_name!r}: a task of the project has it, and these images are another data set. "
            "Pass another name: --name."
        )
    card = _restated(card, images, new_name, stated, start)
    if problems := card_problems(card):
        raise WeightsError(f"{folder / CARD_FILE}: {'; '.join(problems)}.")
    entry = project / "inbox" / folder.name
    with inbox_lock(project, "`tans contribute`"), atomic_folder(entry) as temporary:
        shutil.copyfile(folder / WEIGHTS_FILE, temporary / WEIGHTS_FILE)
        write_json(card.to_dict(), temporary / CARD_FILE)
    return entry


def _run_folder(run: str | Path, project: Path) -> Path:
    for folder in (Path(run).expanduser(), project / "runs" / run):
        if (folder / "card.json").is_file() and (folder / "weights.safetensors").is_file():
            return folder.resolve()
    raise WeightsError(
        f"{run}: no fine-tuning, neither here nor in {project / 'runs'}. Want a folder that `tans finetune` made, with "
        "card.json and weights.safetensors."
    )


def _images(card: ModelCard) -> Ancestor:
    """Return the images that a network was tuned on, as its lineage has them; the latest of this name and source."""
    named = ("task", card.home_task, card.source)
    return [one for one in card.lineage if (one.kind, one.name, one.source) == named][-1]


def _licence(images: Ancestor, stated: str | None, terms: str | Path | None, known: Mapping[str, str]) -> Licence:
    """Return the licence of the images that a network was tuned on.

    Args:
        images: as the card has them.
        stated, terms: as for `contribute`.
        known: texts on the card, by `LicenseRef-` name.

    Raises:
        ParamsError: it is missing, contradicts the task's own, or has no text or two.
    """
    from tans_core.licences import TEXTS, UNSTATED, USERS_OWN, Licence, normalise, suggest, texts_of

    licence = Licence(images.licence) if stated is None else normalise(stated)
    if licence.expression == USERS_OWN or (stated is not None and licence.expression == UNSTATED):
        raise ParamsError(
            f"licence: none is known for the images {images.name!r}. Name it by --licence: an SPDX expression, such as "
            "CC-BY-4.0, or your terms in words."
        )
    if stated is None:
        return licence
    if images.licence not in (USERS_OWN, licence.expression):
        raise ParamsError(
            f"licence: got {licence.expression}, but the task {images.name!r} has {images.licence}. Leave out "
            "--licence."
        )
    if licence.texts and " " not in stated.strip():
        raise ParamsError(
            f"licence {stated!r}: not an SPDX expression{suggest(stated)}. Pass one, such as CC-BY-4.0, or your terms "
            "as a sentence."
        )
    if terms is None:
        if lacking := [
            name for name, text in texts_of(licence.expression, {**known, **licence.texts}).items() if not text
        ]:
            raise ParamsError(
                f"licence: the terms of {', '.join(lacking)} are not known. Pass a file of them: --terms."
            )
        return licence
    own = [name for name in texts_of(licence.expression) if name not in TEXTS]
    if len(own) != 1 or licence.texts:
        raise ParamsError(
            f"terms: a file of terms belongs to one licence of your own, but the licence is {stated}. Pass --licence "
            "LicenseRef-<your name for it>, or leave out --terms."
        )
    try:
        text = Path(terms).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ParamsError(f"terms {terms}: cannot be read ({error}).") from None
    if not text or known.get(own[0], text) != text:
        problem = (
            "images that the network descends from have other terms of this name. Choose another name in --licence."
            if text
            else "the file is empty. Write the terms into it."
        )
        raise ParamsError(f"terms {terms} of {own[0]}: {problem}")
    return Licence(licence.expression, {own[0]: text})


def _restated(card: ModelCard, images: Ancestor, name: str, licence: Licence, start: str) -> ModelCard:
    """Return the card with the images under this name and licence.

    Args:
        card: of the run.
        images: in its lineage.
        name, licence: of the images.
        start: what binds a user of the weights that the network started from.
    """
    from tans_core.licences import combine, texts_of
    from tans_core.zoo.card import Licences

    now = images.model_copy(update={"name": name, "licence": licence.expression})
    lineage = tuple(dict.fromkeys(now if one == images else one for one in card.lineage))
    stated = Licences.of_lineage(lineage)
    weights = combine([start, stated.weights])
    texts = texts_of(combine([card.licences.code, weights]), card.licences.texts | licence.texts)
    changes = {"weights": weights, "data": stated.data, "texts": {name: text for name, text in texts.items() if text}}
    licences = card.licences.model_copy(update=changes)
    return card.model_copy(update={"home_task": name, "lineage": lineage, "licences": licences})
