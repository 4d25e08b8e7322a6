"""Events for people, and an automation that sends them to a webhook.

    python -m flows.notices --webhook https://hooks.example.org/tans

Each event says what happened (`reason`) and what to do (`next`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run

GATE_FAILED = "tans.gate.failed"
QUARANTINED = "tans.zoo.newcomer-quarantined"
REFUSED = "tans.space.refused"
NOTICES = (GATE_FAILED, QUARANTINED, REFUSED)
NAME = "tans-notices"
# JSON that chat services show as it is: they print `text`.
BODY = (
    '{"event": {{ event.event | tojson }}, "payload": {{ event.payload | tojson }}, '
    '"text": {{ (event.event ~ ": " ~ event.payload.reason ~ "\\n" ~ event.payload.next) | tojson }}}'
)


def gate_failed(reason: str) -> None:
    """Emit the event of a gate that refused data in this run."""
    name = flow_run.flow_name or "none"
    payload = {
        "flow": name,
        "run": flow_run.name,
        "reason": reason,
        "next": f"correct the data, then run {name} again; production has not changed",
    }
    emit_event(GATE_FAILED, resource=_resource("flow", name), payload=payload)


def quarantined(entry: str, reason: str) -> None:
    """Emit the event of a newcomer that was not admitted."""
    payload = {
        "entry": entry,
        "folder": f"quarantine/{entry}",
        "reason": reason,
        "next": f"correct quarantine/{entry}/newcomer and move it to inbox/, or delete it",
    }
    emit_event(QUARANTINED, resource=_resource("newcomer", entry), payload=payload)


def send_to_webhook(url: str) -> None:
    """Let the server send every notice to a URL, as a POST of JSON. An earlier URL is replaced.

    Args:
        url: where; the server of the project calls it, so it may be an address of the local network.
    """
    # Runs import this module too, and need none of these.
    from prefect.automations import Automation
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client
    from prefect.events.actions import CallWebhook
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.types import SecretDict
    from pydantic import SecretStr

    webhook: Any = Webhook(url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"}))
    document = webhook.save(NAME, overwrite=True)
    with get_client(sync_client=True) as client:
        for earlier in client.read_automations_by_name(NAME):
            client.delete_automation(earlier.id)
    Automation(
        name=NAME,
        description="Sends what people should know of to a webhook.",
        trigger=EventTrigger(
            expect=set(NOTICES), match={"prefect.resource.id": "tans.*"}, posture=Posture.Reactive, threshold=1
        ),
        actions=[CallWebhook(block_document_id=document, payload=BODY)],
    ).create()


def _resource(kind: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"tans.{kind}.{name}", "prefect.resource.name": name}


def main(arguments: Sequence[str] | None = None) -> int:
    """Register the webhook at the server that `PREFECT_API_URL`, or prefect.toml, names."""
    parser = argparse.ArgumentParser(prog="python -m flows.notices", description=main.__doc__)
    parser.add_argument("--webhook", required=True, metavar="URL", help="where to send notices")
    send_to_webhook(parser.parse_args(arguments).webhook)
    sys.stderr.write(f"{', '.join(NOTICES)} are sent there from now on (automation {NAME})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
