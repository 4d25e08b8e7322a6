"""What the events for people say, and what a webhook is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prefect.server.utilities.user_templates import render_user_template_sync

from flows import notices


def emitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(notices, "emit_event", lambda event, **others: events.append({"event": event, **others}))
    return events


def test_each_notice_says_what_happened_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    events = emitted(monkeypatch)
    notices.gate_failed("gate 'zoo': 2 of 12 models have no accuracy")
    notices.quarantined("oak-net", "not readable as safetensors")
    assert [one["event"] for one in events] == ["tans.gate.failed", "tans.zoo.newcomer-quarantined"]
    for one in events:
        assert one["event"] in notices.NOTICES
        assert one["resource"]["prefect.resource.id"].startswith("tans.")
        assert one["payload"]["reason"] and one["payload"]["next"]
    assert events[1]["payload"]["folder"] == "quarantine/oak-net"


def test_webhook_is_sent_json_that_a_chat_shows() -> None:
    payload = {"reason": 'the "name" is <bad>\nline two', "next": "mend it"}
    body = render_user_template_sync(notices.BODY, {"event": {"event": "tans.gate.failed", "payload": payload}})
    sent = json.loads(body)
    assert sent["text"] == f"tans.gate.failed: {payload['reason']}\nmend it"
    assert sent["payload"] == payload
