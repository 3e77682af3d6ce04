"""Checkpoint files of every bad kind, and the digest."""

import hashlib
import os
import pickle
import warnings

import pytest
import torch
from safetensors.torch import save_file

from clipsyn.errors import CheckpointError
from clipsyn.extract.weights import weights_digest
from tests.extract.conftest import load


class RunsCode:
    """Unpickling this makes a folder."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize(("writer", "form"), [("torch", "file"), ("plain", "folder")])
def test_a_pickle_that_runs_code_is_refused_unread(saved, tmp_path, writer, form):
    checkpoint = saved("clipsyn-vit")
    trace = tmp_path / "code-ran"
    path = tmp_path / "open_clip_pytorch_model.bin"
    content = {"state_dict": checkpoint.model.state_dict(), "extra": RunsCode(trace)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"extra": RunsCode(trace)}, protocol=2))
    source = f"clipsyn-vit@{path}"
    if form == "folder":
        config = (checkpoint.folder / "open_clip_config.json").read_text()
        (tmp_path / "open_clip_config.json").write_text(config)
        source = f"local-dir:{tmp_path}"
    with pytest.raises(CheckpointError) as error:
        load(source)
    assert "weights_only" not in str(error.value)  # torch advises to run the code
    assert not trace.exists()
    # the file does what the test thinks: opened carelessly, it runs
    torch.load(path, weights_only=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert trace.exists()


def test_a_program_is_no_checkpoint(saved, tmp_path):
    saved("clipsyn-vit")
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
        with pytest.raises(CheckpointError) as error:
            load(f"clipsyn-vit@{path}")
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 0.99])
def test_cut_files(saved, tmp_path, suffix, keep):
    checkpoint = saved("clipsyn-vit")
    whole = checkpoint.pt
    if suffix == ".safetensors":
        whole = checkpoint.folder / "open_clip_model.safetensors"
    data = whole.read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: keep if keep >= 1 else int(len(data) * keep)])
    with pytest.raises(CheckpointError, match=rf"cut{suffix}"):
        load(f"clipsyn-vit@{path}")


@pytest.mark.parametrize("content", [{}, [torch.zeros(2)], {"state_dict": None}])
def test_a_file_without_a_state_dict(saved, tmp_path, content):
    saved("clipsyn-vit")
    torch.save(content, tmp_path / "other.pt")
    for path in (tmp_path / "other.pt", tmp_path / "gone.pt", tmp_path):
        with pytest.raises(CheckpointError, match=str(path)):
            load(f"clipsyn-vit@{path}")


def test_weights_are_the_same_from_every_container(saved, tmp_path):
    checkpoint = saved("clipsyn-vit")
    state = checkpoint.model.state_dict()
    want = load(checkpoint.by_file).identity
    parallel = tmp_path / "epoch_3.pt"  # as training scripts of several GPUs save it
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, parallel)
    old = tmp_path / "old.pt"
    torch.save(state, old, _use_new_zipfile_serialization=False)
    safe = checkpoint.folder / "open_clip_model.safetensors"
    for path in (safe, parallel, old):
        assert load(f"clipsyn-vit@{path}").identity == want
    assert load(checkpoint.by_folder).identity["weights"] == want["weights"]
    assert want["weights"] == weights_digest(checkpoint.model)
    half = tmp_path / "half.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, half)
    assert load(f"clipsyn-vit@{half}").identity["weights"] != want["weights"]


@pytest.mark.parametrize(
    ("architecture", "weights", "tensor"),
    [
        ("clipsyn-vit", "clipsyn-vit-wide", "visual.class_embedding"),
        ("clipsyn-rn", "clipsyn-vit", "visual."),
        ("clipsyn-vit", "clipsyn-vit-48", "visual.positional_embedding"),  # no resizing
    ],
)
def test_weights_of_another_architecture_name_the_tensor(saved, architecture, weights, tensor):
    file = saved(weights).pt
    saved(architecture)
    with pytest.raises(CheckpointError) as error:
        load(f"{architecture}@{file}")
    assert str(file) in str(error.value)
    assert tensor in str(error.value)


def test_digest_by_the_definition():
    model = torch.nn.BatchNorm1d(3)
    torch.nn.init.uniform_(model.weight)
    content = b""
    for name in ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]:
        tensor = model.state_dict()[name]
        content += f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode()
        content += tensor.numpy().tobytes()
    assert weights_digest(model) == hashlib.sha256(content).hexdigest()


def test_digest_of_any_type_and_layout_in_memory():
    def digest(**tensors):
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_digest(module)

    base = torch.arange(6, dtype=torch.float32)
    assert digest(a=base.reshape(2, 3).T) == digest(a=base.reshape(2, 3).T.contiguous())
    assert digest(a=base.bfloat16()) == digest(a=base.bfloat16())
