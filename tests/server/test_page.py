"""The app's files: current, small, cached, and allowed to run their own script and nothing else."""

from __future__ import annotations

import gzip
import re
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from fireside.server.page import DIST, PAGE_PATHS
from tests.server.app_schema import KEPT, app_schema

WEB = Path(__file__).parents[2] / "web"
# As web/scripts/stamp.js has it.
ROOTS = (
    "assets",
    "index.html",
    "messages",
    "package-lock.json",
    "package.json",
    "project.inlang/settings.json",
    "public",
    "scripts",
    "src",
    "svelte.config.js",
    "vite.config.ts",
    "vite.frame.config.ts",
)


def sources() -> list[Path]:
    found: list[Path] = []
    for root in (WEB / name for name in ROOTS):
        found += [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
    return [
        path for path in found if not path.name.endswith(".spec.ts") and "paraglide" not in path.relative_to(WEB).parts
    ]


def test_what_is_served_was_built_from_these_sources() -> None:
    digest = sha256()
    for name, path in sorted((path.relative_to(WEB).as_posix(), path) for path in sources()):
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    stamp = (DIST / "sources.sha256").read_text().strip()
    assert stamp == digest.hexdigest(), "web/ has changed since it was built: cd web && npm ci && npm run build"


def test_the_lock_files_name_no_download_addresses() -> None:
    for folder in (WEB, WEB.parent / "tests" / "e2e" / "lighthouse"):
        assert not re.search(r'"resolved"|://registry|\.tgz', (folder / "package-lock.json").read_text())


async def test_the_first_page_is_small(http: httpx.AsyncClient) -> None:
    """Of the budget of 160 kB and 12 requests, the page and what it names may take most."""
    page = (await http.get("/")).text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    named.remove("/manifest.webmanifest")
    assert 2 <= len(named) <= 6 and all(name.startswith("/assets/") for name in named)
    sent = len(page)
    for name in named:
        async with http.stream("GET", name) as response:
            sent += sum([len(chunk) async for chunk in response.aiter_raw()])
    assert 20_000 < sent < 110_000


@pytest.mark.parametrize("path", ["/", "/setup", "/join", "/reset", "/settings", "/settings/keys", f"/c/{'0' * 32}"])
async def test_the_page_may_run_its_own_script_and_no_other(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", response.text, re.DOTALL)
    assert set(scripts) == {""} and "<style" not in response.text and " style=" not in response.text
    assert not re.search(r" on\w+=", response.text)


@pytest.mark.parametrize(("name", "images"), [("frame.html", {"data:"}), ("image.html", {"http:", "https:"})])
async def test_frames_are_nobodys_and_reach_nothing(http: httpx.AsyncClient, name: str, images: set[str]) -> None:
    response = await http.get(f"/assets/{name}")
    assert response.headers["cache-control"] == "no-cache" and response.headers["x-frame-options"] == "SAMEORIGIN"
    policy = {
        directive: set(values)
        for directive, *values in map(str.split, response.headers["content-security-policy"].split(";"))
    }
    assert policy == {
        "sandbox": {"allow-scripts"},
        "default-src": {"'none'"},
        "script-src": {"'self'"},
        "style-src": {"'unsafe-inline'"},
        "img-src": images,
        "base-uri": {"'none'"},
        "form-action": {"'none'"},
        "frame-ancestors": {"'self'"},
    }
    (script,) = re.findall(r'<script type="module" crossorigin src="(/assets/[^"]+)"></script>', response.text)
    # Without an origin, the frame asks for its script as another site would.
    module = await http.get(script, headers={"Origin": "null"})
    assert module.headers["access-control-allow-origin"] == "*" and "set-cookie" not in module.headers


async def test_the_page_fetches_nothing_from_elsewhere_and_frames_its_own(http: httpx.AsyncClient) -> None:
    policy = (await http.get("/")).headers["content-security-policy"]
    assert "img-src 'self' data: blob:;" in policy and "frame-src 'self';" in policy
    assert "http" not in policy and "*" not in policy


async def test_paths_of_the_page_are_not_those_of_the_interface(http: httpx.AsyncClient) -> None:
    assert not any(path.startswith(("/v1", "/api")) for path in PAGE_PATHS)
    for path in ("/api/nothing", "/v1/nothing", "/c", "/settings/a/b", "/nothing"):
        assert (await http.get(path)).status_code in (401, 404)


async def test_files_are_kept_for_good_and_the_page_is_asked_for_again(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert page.headers["cache-control"] == "no-cache"
    script = re.search(r'src="(/assets/[^"]+\.js)"', page.text)
    assert script
    response = await http.get(script[1])
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    again = await http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    changed = await http.get("/", headers={"If-None-Match": 'W/"another"'})
    assert changed.status_code == 200


async def test_the_app_can_be_installed(http: httpx.AsyncClient) -> None:
    """https://www.w3.org/TR/appmanifest/; a service worker speaks for the folder that it lies in."""
    page = await http.get("/")
    assert '<link rel="manifest" href="/manifest.webmanifest"' in page.text
    policy = page.headers["content-security-policy"]
    assert "worker-src 'self'" in policy and "manifest-src 'self'" in policy
    response = await http.get("/manifest.webmanifest")
    assert response.headers["content-type"] == "application/manifest+json"
    manifest = response.json()
    assert manifest["display"] == "standalone" and manifest["start_url"] == manifest["scope"] == "/"
    assert {"any", "maskable"} == {icon.get("purpose", "any") for icon in manifest["icons"]}
    for icon in manifest["icons"]:
        image = await http.get(icon["src"])
        assert image.headers["content-type"] == icon["type"]
        if icon["type"] == "image/png":
            size = int.from_bytes(image.content[16:20]), int.from_bytes(image.content[20:24])
            assert f"{size[0]}x{size[1]}" == icon["sizes"]


async def test_no_browser_is_held_on_an_old_version(http: httpx.AsyncClient) -> None:
    response = await http.get("/sw.js")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    kept = re.findall(r"/assets/[\w.-]+", response.text)
    assert set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', (await http.get("/")).text)) <= set(kept)
    for path in kept:
        assert (await http.get(path)).status_code == 200


async def test_files_are_compressed_for_who_takes_it(http: httpx.AsyncClient) -> None:
    script = next((DIST / "assets").glob("index-*.js"))
    plain = await http.get(f"/assets/{script.name}", headers={"Accept-Encoding": "identity"})
    assert plain.content == script.read_bytes() and "content-encoding" not in plain.headers
    async with http.stream("GET", f"/assets/{script.name}", headers={"Accept-Encoding": "gzip"}) as response:
        sent = b"".join([chunk async for chunk in response.aiter_raw()])
    assert response.headers["content-encoding"] == "gzip" and response.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(sent) == plain.content and len(sent) < len(plain.content) / 2


@pytest.mark.parametrize(
    "name", ["..%2findex.html", "%2e%2e/index.html", "..%5cindex.html", "index.html", "nothing.js"]
)
async def test_no_name_leads_out_of_the_folder(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.get(f"/assets/{name}")).status_code == 404


def test_the_app_knows_the_interface_as_it_is() -> None:
    """Its types are made of what is kept there, so that the compiler finds what no longer fits."""
    assert KEPT.read_text(encoding="utf-8") == app_schema(), (
        "the interface has changed: python -m tests.server.app_schema && make web"
    )
