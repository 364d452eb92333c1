"""TorchScript, examined before PyTorch may read it.

``torch.jit.load`` compiles the archive's source, which is Python by its grammar, and may run parts
of it at once: a class's ``__setstate__``. Its source reaches operators by ``torch.NAME``,
``ops.NAMESPACE.NAME``, as a method or by ``getattr``, and objects written in C++, some of which
load libraries, by ``__torch__.torch.classes.NAMESPACE.NAME``.
"""

import ast
import re
import warnings
from pathlib import Path

from app.inference.model_archives import FILE_OPERATORS, create_refusal, open_archive

# What models of PyTorch's own modules use. Others talk to processes, debuggers and libraries.
_NAMESPACES = frozenset({"aten", "prim", "quantized"})
_FORBIDDEN = FILE_OPERATORS | {"rpc_async", "rpc_sync", "rpc_remote", "PythonOp", "IgnoredPythonOp"}
# Beginnings of names under which the rest could be reached out of sight.
_ROOTS = frozenset({"ops", "__torch__", "__torch__.torch"})
_NATIVE_CLASSES = "__torch__.torch.classes"
_ALLOWED_CLASSES = f"{_NATIVE_CLASSES}.quantized."

# In pickles a name's parts are separated by dots and by one line break.
_PICKLED_CLASS = re.compile(rb"torch[.\n]classes[.\n](?!quantized[.\n])")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f]")


def examine_torchscript(path: Path) -> None:
    """Raises :class:`ConfigurationError` when the file would do more than compute."""
    with open_archive(path) as archive:
        for name in archive.namelist():
            entry = name.casefold().partition("/")[2]
            if entry.startswith("code/") and not entry.endswith(".debug_pkl"):
                _examine_source(path, archive.read(name))
            elif entry.endswith(".pkl") and _PICKLED_CLASS.search(archive.read(name)):
                raise create_refusal(path, "it holds an object that is none of a model's")


def _examine_source(path: Path, source: bytes) -> None:
    try:
        text = source.decode()
        if _CONTROLS.search(text):
            raise ValueError("no printer of PyTorch's writes control characters")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise create_refusal(path, "its source can't be examined") from None
    reason = _Examiner().find_reason(tree)
    if reason:
        raise create_refusal(path, reason)


class _Examiner(ast.NodeVisitor):
    """Walks source until it finds what a model has no need of."""

    def __init__(self) -> None:
        self._reason = ""

    def find_reason(self, tree: ast.AST) -> str:
        """What is wrong with it; empty if nothing is."""
        self.visit(tree)
        return self._reason

    def visit_Name(self, node: ast.Name) -> None:
        self._check(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = _read_dotted(node)
        if name:
            self._check(name)
        else:
            self._check_operator(node.attr)
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "getattr":
            attribute = node.args[1] if len(node.args) > 1 else None
            if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
                self._check_operator(attribute.value)
            else:
                self._reason = "it computes the name of an attribute"
        self.generic_visit(node)

    def _check(self, name: str) -> None:
        first, *rest = name.split(".")
        if name in _ROOTS or (first == "ops" and (len(rest) != 2 or rest[0] not in _NAMESPACES)):
            self._reason = f"it calls {name}"
        native = f"{name}.".startswith(f"{_NATIVE_CLASSES}.")
        if native and not name.startswith(_ALLOWED_CLASSES):
            self._reason = f"it uses {name}"
        for part in rest:
            self._check_operator(part)

    def _check_operator(self, name: str) -> None:
        if name in _FORBIDDEN:
            self._reason = f"it calls {name}"


def _read_dotted(node: ast.expr) -> str:
    """``a.b.c`` as text; empty where it begins with something else than a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _read_dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""
