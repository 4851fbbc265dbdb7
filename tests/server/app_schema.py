"""What the app in the browser is written against: its part of `/openapi.json`, as `web/openapi.json` keeps it.

Written anew by `python -m tests.server.app_schema`; `make web` makes TypeScript of it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.server.scripted_app import Scripted, scripted_app

KEPT = Path(__file__).parents[2] / "web" / "openapi.json"


def app_schema() -> str:
    """The paths below /api, and the components that they name."""
    whole: dict[str, Any] = scripted_app(Scripted()).openapi()
    paths = {path: described for path, described in whole["paths"].items() if path.startswith("/api/")}
    components = whole["components"]["schemas"]
    kept: dict[str, Any] = {}
    waiting = _named(paths)
    while waiting:
        name = waiting.pop()
        kept[name] = components[name]
        waiting |= _named(kept[name]) - kept.keys()
    info = {"title": whole["info"]["title"], "version": "app"}  # a release alone changes nothing here
    part = {"openapi": whole["openapi"], "info": info, "paths": paths, "components": {"schemas": kept}}
    return json.dumps(part, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _named(value: Any) -> set[str]:
    return set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(value)))


if __name__ == "__main__":
    KEPT.write_text(app_schema(), encoding="utf-8")
