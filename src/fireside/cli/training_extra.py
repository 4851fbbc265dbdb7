"""What only training needs is installed on demand; whoever lacks it is told so before any work begins."""

from __future__ import annotations

from importlib.util import find_spec

from fireside.errors import FiresideError

_MODULES = ("numpy", "pyarrow", "ftfy", "py3langid", "sklearn")  # of the extra `train`


def needs_training() -> None:
    """For commands that train, or prepare what is trained on. Raises `FiresideError` if the extra is not installed."""
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        here = "or in a checkout pip install -e '.[train]'"
        raise FiresideError(f"this needs {', '.join(missing)}: pip install 'fireside[train]', {here}")
