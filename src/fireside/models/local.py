"""What a model on disk is: its config, generation defaults, chat template and licence. Free of torch.

A model is a GGUF file, or a folder in Hugging Face's layout (`config.json`, safetensors, `tokenizer.json`), or a
folder that holds one GGUF file, or an adapter in PEFT's format, whose base is one of the others. `fireside pull` keeps
each in a folder of its own below `FIRESIDE_HOME/models`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fireside.errors import ModelError
from fireside.gguf import GGUFFile
from fireside.models.adapter import is_adapter, open_base
from fireside.models.config import ModelConfig, config_from_hf
from fireside.models.digest import content_digest
from fireside.models.fields import Fields
from fireside.models.gguf_config import config_from_gguf_file
from fireside.models.json_file import read_json, read_text
from fireside.models.names import RECORD_FILE, is_model_name
from fireside.models.safetensors_header import read_header

if TYPE_CHECKING:
    from fireside.settings import Settings
    from fireside.tokenizers.tokenizer import Tokenizer

DEFAULT_ALIAS = "default"  # always means the default model

# Tokens that end a turn in the supported families. A GGUF names one eos id, which for Llama 3 and some Qwen files is
# the end of the text and not of the turn; transformers keeps the rest in generation_config.json, GGUF nowhere.
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>")
_GGUF_SAMPLING = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
_GGUF_SPECIAL_TYPES = (3, 4)  # control, user defined


@dataclass(frozen=True)
class GenerationDefaults:
    """How the model's authors want it sampled. None: they do not say."""

    eos_token_ids: tuple[int, ...]
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class LocalModel:
    """A model on disk that passed the checks that need no weights: it is whole and of a supported family.

    `path` is the GGUF file or the folder. `weight_type` is the type of most weights ("Q4_1", "BF16").
    `size_bytes` counts the files that hold weights. `base` is what an adapter adapts; `weight_type` is then its base's.
    """

    name: str
    path: Path
    format: Literal["gguf", "safetensors", "adapter"]
    config: ModelConfig
    generation: GenerationDefaults
    chat_template: str | None
    weight_type: str
    size_bytes: int
    license: str | None
    base: LocalModel | None = None

    def version(self) -> str:
        """A digest of what decides its answers, by samples of large files: the same for a copy."""
        own = content_digest(self.path)
        return own if self.base is None else sha256(f"{own} {self.base.version()}".encode()).hexdigest()

    def load_tokenizer(self) -> Tokenizer:
        """Raises `ModelError` if there is none that can be used."""
        from fireside.tokenizers.tokenizer import Tokenizer  # listing models does without the Rust library

        if self.format == "gguf":
            return Tokenizer.from_gguf(GGUFFile(self.path))
        path = self.path / "tokenizer.json"
        if self.base is not None and not path.is_file():
            return self.base.load_tokenizer()
        if not path.is_file():
            raise ModelError(
                f"{self.path} has no tokenizer.json: save it with transformers' AutoTokenizer, which writes one"
            )
        return Tokenizer.from_file(path, read_json(self.path / "tokenizer_config.json"))


@dataclass(frozen=True)
class DamagedModel:
    """Something below the models folder that is not a usable model, and why."""

    name: str
    path: Path
    reason: str


def open_model(path: Path, name: str | None = None, models_dir: Path | None = None) -> LocalModel:
    """Describes the model at `path`; `name` defaults to the file's or folder's own. An adapter's base is looked for in
    `models_dir`.

    Raises `ModelError` naming the file for damage, truncation and everything that is not supported.
    """
    path = path.expanduser()
    if path.is_dir():
        if is_adapter(path):
            return _open_adapter(path, name or path.resolve().name, models_dir)
        if any(path.glob("*.safetensors")):
            return _open_safetensors(path, name or path.resolve().name)
        return _open_gguf(single_gguf(path), name or path.resolve().name, read_json(path / RECORD_FILE))
    if not path.exists():
        raise ModelError(f"{path} does not exist")
    if path.suffix.lower() != ".gguf":
        raise ModelError(f"{path} is not a model: a model is a .gguf file or a folder with config.json and safetensors")
    return _open_gguf(path, name or path.stem, read_json(path.parent / RECORD_FILE))


def list_models(home: Path) -> list[LocalModel | DamagedModel]:
    """Everything in `home`/models by name, what cannot be used included."""
    directory = home / "models"
    found: list[LocalModel | DamagedModel] = []
    if not directory.is_dir():
        return found
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or path.is_symlink()):
            continue
        try:
            found.append(open_model(path, path.name, directory))
        except ModelError as error:
            found.append(DamagedModel(path.name, path, str(error)))
    return found


def resolve_model(name_or_path: str, settings: Settings) -> LocalModel:
    """The model of that name in `settings.models_dir`, or at that path; "default" means `settings.model`.

    Raises `ModelError` saying how to fetch it if it is not there.
    """
    wanted = settings.model if name_or_path == DEFAULT_ALIAS else name_or_path
    if is_model_name(wanted) and (folder := settings.models_dir / wanted).is_dir():
        return open_model(folder, wanted, settings.models_dir)
    path = Path(wanted).expanduser()
    if path.exists():
        return open_model(path, models_dir=settings.models_dir)
    if is_model_name(wanted):
        raise ModelError(
            f"there is no model {wanted!r} in {settings.models_dir}: fireside models lists those that are there, and "
            "fireside pull fetches others"
        )
    raise ModelError(f"there is no model at {path}")


def read_hf_config(folder: Path) -> tuple[dict[str, Any], ModelConfig]:
    """The `config.json` of a Hugging Face folder, as it is and as we understand it. Raises `ModelError`."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has safetensors but no config.json, which says what they are")
    raw = read_json(path)
    return raw, config_from_hf(raw, str(path))


def safetensors_files(folder: Path) -> list[Path]:
    """The weights of a Hugging Face folder: `model.safetensors`, or the shards that its index names.

    Raises `ModelError` for a shard that is missing.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        raise ModelError(f"{folder} has neither model.safetensors nor {index.name}")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(_is_plain_file_name(shard) for shard in weight_map.values()):
        raise ModelError(f"{index} is damaged: weight_map does not map tensors to files of this folder")
    shards = [folder / shard for shard in sorted(set(weight_map.values()))]
    for shard in shards:
        if not shard.is_file():
            raise ModelError(f"{shard} is missing, and {index.name} names it: fetch the model again")
    return shards


def _is_plain_file_name(value: object) -> bool:
    return isinstance(value, str) and value.endswith(".safetensors") and Path(value).name == value


def single_gguf(folder: Path) -> Path:
    """The one GGUF file of a folder without safetensors. Raises `ModelError` if it is not one."""
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if files:
        raise ModelError(f"{folder} holds {len(files)} GGUF files; name one: {', '.join(f.name for f in files)}")
    pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickles:
        raise ModelError(
            f"{folder} holds its weights as pickles ({pickles[0].name}), which can run code when they are loaded: "
            "convert them to safetensors"
        )
    raise ModelError(f"{folder} holds no model: no safetensors and no .gguf file")


def _open_safetensors(folder: Path, name: str) -> LocalModel:
    raw, config = read_hf_config(folder)
    files = safetensors_files(folder)
    types: Counter[str] = Counter()
    for file in files:
        for tensor in read_header(file).values():
            types[tensor.dtype] += tensor.num_elements
    return LocalModel(
        name=name,
        path=folder,
        format="safetensors",
        config=config,
        generation=_hf_generation(folder, raw, config.vocab_size),
        chat_template=hf_chat_template(folder),
        weight_type=_commonest(types, folder),
        size_bytes=sum(file.stat().st_size for file in files),
        license=_hf_license(folder),
    )


def _open_adapter(folder: Path, name: str, models_dir: Path | None) -> LocalModel:
    """What the adapter's folder does not say of text and sampling, its base says."""
    adapter, path = open_base(folder, models_dir)
    base = open_model(path)
    adapter.stored()
    has_own = (folder / "generation_config.json").is_file()
    return LocalModel(
        name=name,
        path=folder,
        format="adapter",
        config=base.config,
        generation=_hf_generation(folder, {}, base.config.vocab_size) if has_own else base.generation,
        chat_template=hf_chat_template(folder) or base.chat_template,
        weight_type=base.weight_type,
        size_bytes=adapter.weights.stat().st_size,
        license=_hf_license(folder) or base.license,
        base=base,
    )


def _hf_generation(folder: Path, config: Mapping[str, Any], vocab_size: int) -> GenerationDefaults:
    path = folder / "generation_config.json"
    raw = read_json(path)
    fields = Fields(raw, str(path))
    eos = raw.get("eos_token_id")
    eos = config.get("eos_token_id") if eos is None else eos
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(isinstance(item, int) and 0 <= item < vocab_size for item in ids):
        raise ModelError(f"{path}: eos_token_id is {eos!r}; it must be a token id below {vocab_size}, or a list")
    return _generation(tuple(ids), fields)


def _generation(eos_token_ids: tuple[int, ...], fields: Fields) -> GenerationDefaults:
    return GenerationDefaults(
        eos_token_ids=eos_token_ids,
        temperature=fields.optional_number("temperature"),
        top_p=fields.optional_number("top_p"),
        top_k=fields.optional_integer("top_k"),
        min_p=fields.optional_number("min_p"),
        repetition_penalty=fields.optional_number("repetition_penalty"),
    )


def hf_chat_template(folder: Path) -> str | None:
    """`chat_template.jinja` over `chat_template.json` over `tokenizer_config.json`, as transformers looks for it."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return read_text(file)
    for path in (folder / "chat_template.json", folder / "tokenizer_config.json"):
        template = read_json(path).get("chat_template")
        if isinstance(template, list):  # named templates: [{"name": "default", "template": ...}, ...]
            named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
            template = named.get("default")
        if isinstance(template, str):
            return template
    return None


def _hf_license(folder: Path) -> str | None:
    """What the hub said at the time of the pull, or the model card's own front matter."""
    recorded = read_json(folder / RECORD_FILE).get("license")
    if isinstance(recorded, str):
        return recorded
    card = folder / "README.md"
    front_matter = re.match(r"---\r?\n(.*?)\r?\n---", read_text(card), re.DOTALL) if card.is_file() else None
    found = re.search(r"^license:\s*['\"]?([\w.+-]+)", front_matter[1], re.MULTILINE) if front_matter else None
    return found[1] if found else None


def _open_gguf(path: Path, name: str, record: Mapping[str, Any]) -> LocalModel:
    file = GGUFFile(path)
    types: Counter[str] = Counter()
    for info in file.tensors.values():
        types[info.type.name] += prod(info.shape)
    template = file.metadata.get("tokenizer.chat_template")
    licence = file.metadata.get("general.license", record.get("license"))
    return LocalModel(
        name=name,
        path=path,
        format="gguf",
        config=config_from_gguf_file(file),
        generation=_gguf_generation(file.metadata, record, path),
        chat_template=template if isinstance(template, str) else None,
        weight_type=_commonest(types, path),
        size_bytes=path.stat().st_size,
        license=licence if isinstance(licence, str) else None,
    )


def _gguf_generation(metadata: Mapping[str, Any], record: Mapping[str, Any], path: Path) -> GenerationDefaults:
    """The file's own word over what the catalog knew when the model was pulled."""
    known = record.get("generation")
    values = dict(known) if isinstance(known, dict) else {}
    values |= {ours: metadata[theirs] for ours, theirs in _GGUF_SAMPLING.items() if theirs in metadata}
    return _generation(_gguf_eos_ids(metadata), Fields(values, str(path)))


def _gguf_eos_ids(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    named = [metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    tokens, types = metadata.get("tokenizer.ggml.tokens", []), metadata.get("tokenizer.ggml.token_type", [])
    special = [
        index
        for index, (token, kind) in enumerate(zip(tokens, types, strict=False))
        if kind in _GGUF_SPECIAL_TYPES and token in _END_OF_TURN
    ]
    # Some converters write an id beyond the vocabulary where there is none; llama.cpp passes over it too.
    return tuple(dict.fromkeys(i for i in [*named, *special] if isinstance(i, int) and 0 <= i < len(tokens)))


def _commonest(types: Counter[str], path: Path) -> str:
    if not types:
        raise ModelError(f"{path} holds no tensors")
    return max(types, key=lambda kind: types[kind])
