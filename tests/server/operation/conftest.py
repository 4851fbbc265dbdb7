from __future__ import annotations

from tests.server.serving.conftest import ada as ada
from tests.server.serving.conftest import app as app
from tests.server.serving.conftest import cheap_hashes as cheap_hashes
from tests.server.serving.conftest import second as second
