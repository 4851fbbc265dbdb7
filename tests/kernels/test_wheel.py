"""The wheel and the kernels that it brings: they run without a compiler, all alike, and never where they cannot."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hatch_build import KernelsHook
from torch import Tensor

from fireside.engine.native_runner import NativeRunner
from fireside.kernels.cpu import build, library, variants
from fireside.kernels.cpu.build import find_compiler, prebuilt_library
from fireside.kernels.cpu.library import load_library
from fireside.kernels.cpu.variants import VARIANTS, Variant, processor_features, runnable
from fireside.models.checkpoint import open_checkpoint
from tests.engine.paged_rows import rows_for, run_step
from tests.kernels.native import needs_compiler
from tests.models.families import random_ids, reference
from tests.models.gguf_files import write_gguf

ROOT = Path(__file__).parents[2]
PREBUILT = Path("fireside/kernels/cpu/prebuilt")
KINDS = ["F32", "BF16", "F16", "Q4_1", "Q8_0", "Q4_K"]  # every way in which a product is computed
X86 = VARIANTS["x86_64"]

pytestmark = [
    pytest.mark.timeout(600),  # the first run compiles every variant; they stay in build/ until the sources change
    pytest.mark.skipif(
        sys.platform != "linux" or not variants.variants(), reason="wheels bring kernels for Linux on x86-64 and ARM"
    ),
]


def run(*command: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *command], env=os.environ | environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def wheel_of(folder: Path, **environment: str) -> Path:
    run("-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", str(folder), ".", **environment)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    wheel = wheel_of(folder)
    assert re.search(r"-py3-none-manylinux_2_\d+_\w+\.whl$", wheel.name)
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(wheel))
    return folder / "site"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny GGUF files, one of each kind, in one folder."""
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        tiny = reference("qwen3", hidden_size=256, intermediate_size=256, num_attention_heads=8, head_dim=32)
        write_gguf(tiny, folder / f"{kind}.gguf", kind, arch="qwen3")
    return folder


def logits_of(models: Path) -> Tensor:
    """Of a prompt, of a decode step, and of two prompts at once, by the library that `load_library` gives."""
    found = []
    for kind in KINDS:
        runner = NativeRunner(open_checkpoint(models / f"{kind}.gguf"), num_blocks=64, max_context=64, threads=2)
        rows = rows_for(runner, random_ids(rows=3, tokens=20))
        run_step(runner, [(rows[0], 19)])
        run_step(runner, [(rows[0], 1), (rows[1], 20), (rows[2], 7)])
        found += [logits for row in rows for logits in row.logits]
    return torch.cat(found)


LOGITS = """
import sys, torch
from pathlib import Path
import fireside
from tests.kernels.test_wheel import logits_of
torch.save(logits_of(Path(sys.argv[1])), sys.argv[2])
print(fireside.__file__)
"""


@needs_compiler
def test_without_a_compiler_the_wheels_kernels_compute_what_compiled_ones_do(
    installed: Path, model: Path, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": f"{installed}:{ROOT}", "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "c")}
    origin = run("-P", "-c", LOGITS, str(model), str(tmp_path / "logits"), **environment, CXX="c++")
    assert origin.startswith(str(installed))
    assert not (tmp_path / "c" / "fireside").exists()
    assert torch.equal(torch.load(tmp_path / "logits"), logits_of(model))


@needs_compiler
def test_variants_with_the_same_arithmetic_give_the_same_bits(
    installed: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {}
    for variant in runnable(processor_features()):
        monkeypatch.setattr(build, "runnable", lambda features, variant=variant: (variant,))
        path = prebuilt_library(installed / PREBUILT)
        assert path is not None, f"the wheel lacks {variant.name}"
        monkeypatch.setattr(library, "load_library", lambda path=path: load_library(path))
        results[variant.name] = logits_of(model)
    # Two compute otherwise: one has no fused multiply-add and so rounds twice, one multiplies in bfloat16.
    others = {name: results.pop(name) for name in ("x86-64", "x86-64-v4-bf16") if name in results and len(results) > 1}
    first = next(iter(results.values()))
    for name, logits in results.items():
        assert torch.equal(logits, first), name
    for name, logits in others.items():
        assert (logits - first).norm() < 0.03 * first.norm(), name


@needs_compiler
def test_the_best_whole_library_is_taken_that_the_processor_can_run(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(*features: str) -> str:
        monkeypatch.setattr(build, "processor_features", lambda: frozenset(features))
        path = prebuilt_library(tmp_path)
        return path.name.rsplit("-", 2)[0] if path else "none"

    monkeypatch.setattr(variants.platform, "machine", lambda: "x86_64")
    libraries = sorted((installed / PREBUILT).glob("*.so"))
    for path in libraries:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    requires = {variant.name: variant.requires for variant in X86}
    v4, v3 = requires["x86-64-v4-vnni"], requires["x86-64-v3"]
    assert chosen(*v4, "avx512_bf16") == "decoder-x86-64-v4-bf16"
    assert chosen(*v4, "avx_vnni") == "decoder-x86-64-v4-vnni"
    assert chosen(*v3, "avx_vnni") == "decoder-x86-64-v3-vnni"
    assert chosen(*v4 - {"avx512_vnni"}) == "decoder-x86-64-v3"
    assert chosen(*v4 - {"avx2"}) == "decoder-x86-64"
    assert chosen() == "decoder-x86-64"
    for path in tmp_path.glob("decoder-x86-64-v4*.so"):
        os.truncate(path, path.stat().st_size // 2)  # to load it would end the process with SIGBUS
    assert chosen(*v4) == "decoder-x86-64-v3"
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DOTHER"))  # stands for other sources
    assert chosen(*v4) == "none"


@needs_compiler
@pytest.mark.skipif(variants.platform.machine() != "x86_64", reason="asks the compiler about x86-64")
@pytest.mark.parametrize("variant", X86, ids=lambda variant: variant.name)
def test_a_variant_requires_whatever_its_flags_let_the_compiler_use(variant: Variant) -> None:
    """So that no instruction is ever met that the processor lacks."""

    def macros(flags: tuple[str, ...]) -> set[str]:
        command = [find_compiler(), *flags, "-dM", "-E", "-x", "c++", "/dev/null"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"this compiler is too old for it: {result.stderr}")
        return set(re.findall(r"#define __([A-Z0-9_]+?)__ 1$", result.stdout, re.MULTILINE))

    linux = {
        "AVX512BF16": "avx512_bf16", "AVX512VNNI": "avx512_vnni", "AVXVNNI": "avx_vnni", "BMI": "bmi1",
        "CRC32": "sse4_2", "LAHF_SAHF": "lahf_lm", "LZCNT": "abm", "SSE3": "pni",
    }  # fmt: skip
    allowed = {linux.get(name, name.lower()) for name in macros(variant.flags) - macros(X86[-1].flags)}
    assert allowed <= variant.requires
    assert allowed or variant is X86[-1]


def test_a_prebuilt_library_that_does_not_load_is_compiled_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a system older than the wheel is for."""
    damaged = tmp_path / "decoder.so"
    damaged.write_bytes(b"not a library")
    compiled = tmp_path / "compiled.so"
    compiled.write_bytes(b"neither")
    monkeypatch.setattr(library, "prebuilt_library", lambda: damaged)
    monkeypatch.setattr(library, "build_library", lambda: compiled)
    with pytest.raises(build.NativeUnavailable, match=r"compiled\.so cannot be loaded"):
        load_library.__wrapped__()
    assert "decoder.so cannot be loaded" in caplog.text


def test_a_variant_that_is_not_known_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no wheel without kernels, which nobody asked for."""
    monkeypatch.setenv("FIRESIDE_VARIANTS", f"{variants.variants()[-1].name} x86-64-v5")
    hook = KernelsHook(str(ROOT), {}, None, None, str(tmp_path), "wheel")
    with pytest.raises(ValueError, match=rf"names x86-64-v5; .*{variants.variants()[-1].name}"):
        hook.initialize("standard", {})


def test_a_machine_without_a_compiler_makes_a_pure_wheel(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path, PATH=str(tmp_path), CXX="c++")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "fireside/kernels/cpu/decoder.cpp" in names
    assert "fireside/web/dist/index.html" in names
    assert not [name for name in names if name.endswith(".so")]
