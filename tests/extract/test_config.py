"""What a folder of others may say of a model: nothing that is run, fetched or out of range."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import open_clip
import pytest

from clipsyn.errors import CheckpointError
from clipsyn.extract.encoder import load_encoder
from clipsyn.extract.weights import locate, read_config
from clipsyn.names import Backbone
from tests.extract.conftest import VIT

CONFIG = "open_clip_config.json"
MODEL, IMAGES, TEXTS, PIXELS = "model_cfg", "vision_cfg", "text_cfg", "preprocess_cfg"


def written(folder, model, **preprocess):
    path = folder / CONFIG
    path.write_text(json.dumps({MODEL: model, PIXELS: preprocess}))
    return path


def test_what_open_clip_ships_may_be_said(tmp_path):
    for name in open_clip.list_models():
        model = open_clip.get_model_config(name)
        assert read_config(written(tmp_path, model)) == model, name


FORBIDDEN = [
    (TEXTS, "tokenizer_kwargs", {"trust_remote_code": True}),
    (TEXTS, "tokenizer_kwargs", {"tokenizer_file": "/etc/passwd"}),
    (TEXTS, "hf_tokenizer_name", "/srv/evil"),
    (TEXTS, "hf_model_name", "../evil"),
    (TEXTS, "hf_model_name", "a/b/c"),
    (TEXTS, "auto_map", {"AutoModel": "evil.Model"}),
    (TEXTS, "norm_kwargs", {"device": "cuda"}),
    (TEXTS, "layers", 10**9),
    (TEXTS, "vocab_size", 10**12),
    (TEXTS, "width", "1" * 400),
    (IMAGES, "timm_model_name", "hf-hub:evil/model"),
    (IMAGES, "timm_pool", "../pool"),
    (IMAGES, "act_kwargs", {"inplace": {}}),
    (IMAGES, "image_size", 10**9),
    (MODEL, "pretrained_hf", True),
    (MODEL, "cache_dir", "/srv/evil"),
    (MODEL, "embed_dim", "512"),
    (MODEL, IMAGES, None),
]


@pytest.mark.parametrize(("part", "key", "value"), FORBIDDEN)
def test_what_may_not_be_said(tmp_path, part, key, value):
    content = json.loads(json.dumps({MODEL: VIT, PIXELS: {}}))
    {**content, **content[MODEL]}[part][key] = value
    (tmp_path / CONFIG).write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as caught:
        locate(Backbone.parse(f"local-dir:{tmp_path}"))
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [0, 0]),
        ("std", [0, 1, 1]),
        ("interpolation", "lanczos"),
        ("resize_mode", "stretch"),
    ],
)
def test_preprocessing_that_cannot_be(saved, write_folder, key, value):
    state = saved("clipsyn-vit").model.state_dict()
    source = write_folder("odd", VIT, state, **{key: value})

    def encode():
        encoder = load_encoder(Backbone.parse(source), device="cpu")
        encoder.to_host([encoder.encode_images(np.zeros((1, 32, 32, 3), np.uint8))])

    with pytest.raises(CheckpointError):
        encode()


class AutoTokenizer:
    """As that of transformers: it runs the folder's program where it is told to trust it."""

    @staticmethod
    def from_pretrained(folder, trust_remote_code=None, **_):
        library = sys.modules["transformers"]
        if trust_remote_code or (
            trust_remote_code is None and library.dynamic_module_utils.TIME_OUT_REMOTE_CODE
        ):
            exec((folder / "evil.py").read_text())
        raise ValueError("a program would have to run")


@pytest.mark.parametrize("options", [{"trust_remote_code": True}, {}])
def test_no_program_of_the_folder_is_run(saved, write_folder, monkeypatch, options):
    library = ModuleType("transformers")
    library.AutoTokenizer = AutoTokenizer
    library.dynamic_module_utils = SimpleNamespace(TIME_OUT_REMOTE_CODE=15)
    monkeypatch.setitem(sys.modules, "transformers", library)
    texts = {**VIT[TEXTS], "hf_tokenizer_name": "lab/words", "tokenizer_kwargs": options}
    state = saved("clipsyn-vit").model.state_dict()
    source = write_folder("odd", {**VIT, TEXTS: texts}, state)
    folder = Path(source.removeprefix("local-dir:"))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    with pytest.raises(CheckpointError):
        load_encoder(Backbone.parse(source), device="cpu")
    assert not (folder / "ran").exists()
