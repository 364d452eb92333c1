"""Model files that would do more than compute: refused in one line before any of it happens."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from app.core.errors import ConfigurationError
from app.inference.checkpoints import load_checkpoint
from app.inference.model_archives import FILE_OPERATORS
from app.models.manifest import load_manifest
from tests import model_files
from tests.model_files import describe, read_entry, rewrite, source_of

BEFORE = b"precious"


class Overwriting(nn.Module):
    """Classifies, and overwrites a file of its author's choice when it does."""

    def __init__(self, victim: str) -> None:
        super().__init__()
        self.victim = victim
        self.network = model_files.build_network()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mapped = torch.from_file(self.victim, shared=True, size=8, dtype=torch.uint8)
        mapped.fill_(65)
        answers: torch.Tensor = self.network(images)
        return answers + mapped.sum() * 0


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that no model has anything to do with."""
    file = tmp_path / "victim"
    file.write_bytes(BEFORE)
    return file


def assert_refused(model: Path, *complaints: str) -> None:
    """Loading and running it ends in one line that says why."""
    with pytest.raises(ConfigurationError) as caught:
        size = model_files.SIZE
        load_checkpoint(source_of(model)).module(torch.zeros(1, 3, size, size))
    for complaint in (model.name, "is refused", *complaints):
        assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def assert_labels_refused(folder: Path, labels: str) -> None:
    manifest = describe(folder / "model.pth", labels=labels).with_suffix(".json")
    with pytest.raises(ConfigurationError, match="in the model's folder") as caught:
        load_manifest(manifest)
    assert str(manifest) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "labels",
    ["/etc/passwd", "../secret.txt", "in/../../secret.txt", "link", "in/link", "folder/secret.txt"]
    + ["circle", "pipe", ".", "", "a\0b", "x" * 5000, "/no/such/file"],
)
def test_labels_come_from_the_models_folder_alone(tmp_path: Path, labels: str) -> None:
    folder = tmp_path / "models"
    (folder / "in").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("the password\n")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "in" / "link").symlink_to("../../secret.txt")
    (folder / "folder").symlink_to("..")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    assert_labels_refused(folder, labels)


def test_labels_may_lie_deeper_and_behind_links_within(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: every file is a link into a folder beside it."""
    real = tmp_path / "mount" / "..2026"
    real.mkdir(parents=True)
    (real / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "mount" / "names.txt").symlink_to("..2026/names.txt")
    linked = tmp_path / "linked"
    linked.symlink_to("mount")
    for labels in ("names.txt", "..2026/names.txt", str(real / "names.txt")):
        manifest = describe(linked / "model.pth", labels=labels).with_suffix(".json")
        assert load_manifest(manifest).labels == ("cat", "dog")


def save_script(folder: Path, network: nn.Module) -> Path:
    path = describe(folder / "script.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network), path)  # type: ignore[no-untyped-call]
    return path


def test_a_script_that_maps_a_file_is_refused(tmp_path: Path, victim: Path) -> None:
    assert_refused(save_script(tmp_path, Overwriting(str(victim))), "it calls from_file")
    assert victim.read_bytes() == BEFORE


@pytest.mark.parametrize("function", ["from_file.default", "from_file.out", "save.default"])
def test_an_exported_program_calls_no_operator_that_names_a_file(
    tmp_path: Path, function: str
) -> None:
    path = model_files.save_exported(tmp_path)
    name, program = read_entry(path, "models/model.json")
    assert b"aten.relu.default" in program
    changed = program.replace(b"aten.relu.default", f"aten.{function}".encode())
    rewrite(path, name, changed)
    assert_refused(path, f"torch.ops.aten.{function}")


WRITE = "argument_1 = torch.add(argument_1, torch.sum(torch.fill_({}, 65)))"
# PyTorch takes all of these but the last two; the first seven write to the file VICTIM.
SPELLINGS = [
    "torch.save(argument_1, VICTIM)",
    "ops.aten.save(argument_1, VICTIM)",
    WRITE.format("torch.from_file(VICTIM, True, 2)"),
    WRITE.format("ops.aten.from_file(VICTIM, True, 2)"),
    WRITE.format("torch . from_file(VICTIM, True, 2)"),
    WRITE.format('getattr(torch, "from\\137file")(VICTIM, True, 2)'),
    WRITE.format('getattr(torch, "from" "_file")(VICTIM, True, 2)'),
    "call = torch.from_file",
    "everything = ops",
    "everything = ops.aten",
    "everything = __torch__.torch",
    "loader = (__torch__.torch).classes.aoti",
    "ops.prim.rpc_async(VICTIM, argument_1)",
    "ops.inductor.something(argument_1)",
    "loader = __torch__.torch.classes.aoti.AOTIModelLoader.__new__(VICTIM)",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_script_reaches_no_file_in_any_spelling(
    tmp_path: Path, victim: Path, spelling: str
) -> None:
    path = model_files.save_torchscript(tmp_path)
    name, source = read_entry(path, "activation.py", "torch/nn/modules/activation/")
    statement = f"    {spelling.replace('VICTIM', repr(str(victim)))}\n    return ".encode()
    rewrite(path, name, source.replace(b"    return ", statement))
    assert_refused(path)
    assert victim.read_bytes() == BEFORE


class Waking:
    """Has a part that runs as soon as it is loaded."""

    def __init__(self, victim: str) -> None:
        self.victim = victim

    def __getstate__(self) -> str:
        return self.victim

    def __setstate__(self, victim: str) -> None:
        self.victim = victim


def test_a_script_that_acts_while_it_is_loaded_is_refused(tmp_path: Path, victim: Path) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model_files.build_network()
            self.waking = waking(str(victim))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            answers: torch.Tensor = self.network(images)
            return answers if len(self.waking.victim) else images

    waking: Callable[[str], Waking] = torch.jit.script(Waking)  # type: ignore[no-untyped-call]
    path = save_script(tmp_path, Network())
    name, source = read_entry(path, "test_model_attacks.py")
    assert b"__setstate__" in source
    rewrite(
        path,
        name,
        source.replace(b"    return None", b"    torch.save(victim, victim)\n    return None"),
    )
    assert_refused(path, "it calls save")
    assert victim.read_bytes() == BEFORE


def test_an_object_of_a_native_class_is_refused(tmp_path: Path) -> None:
    path = model_files.save_torchscript(tmp_path)
    name, pickle = read_entry(path, "data.pkl")
    rewrite(path, name, pickle.replace(b"c__torch__", b"c__torch__.torch.classes.aoti", 1))
    assert_refused(path, "an object that is none of a model's")


def test_source_that_is_none_is_refused(tmp_path: Path) -> None:
    path = model_files.save_torchscript(tmp_path)
    name, source = read_entry(path, "activation.py", "torch/nn/modules/activation/")
    for broken in (b"class", source + b"\x0c", b"\xff", b"(" * 100_000):
        rewrite(path, name, broken)
        assert_refused(path, "its source can't be examined")


@pytest.mark.parametrize("save", [model_files.save_torchscript, model_files.save_exported])
def test_an_archive_that_others_read_otherwise_is_refused(
    tmp_path: Path, save: Callable[[Path], Path]
) -> None:
    path = save(tmp_path)
    whole = path.read_bytes()
    for hidden in (b"PTMF" + whole, whole + b"PK"):
        path.write_bytes(hidden)
        assert_refused(path, "before or behind its archive")
    path.write_bytes(whole)
    name, entry = read_entry(path, ".py", "model.json")
    rewrite(path, name.upper(), entry)
    assert_refused(path, "twice")


@pytest.mark.parametrize("quantise", [False, True])
def test_what_pytorch_itself_writes_is_loaded(tmp_path: Path, quantise: bool) -> None:
    network: nn.Module = model_files.build_network()
    if quantise:
        network = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})
    size = model_files.SIZE
    path = save_script(tmp_path, network)
    answers = load_checkpoint(source_of(path)).module(torch.zeros(1, 3, size, size))
    assert answers.shape == (1, len(model_files.LABELS))


def test_all_operators_that_name_a_file_are_known() -> None:
    """A new PyTorch may bring another one: then it belongs to those that are refused."""
    found = set()
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        words = {argument.name for argument in schema.arguments if "str" in str(argument.type)}
        if space in ("aten", "prim", "quantized") and words & {"filename", "file", "path"}:
            found.add(name)
    assert found == FILE_OPERATORS
