"""Check an install without torch: commands run, `extract` says what it lacks, a fit works."""

import subprocess
import sys
import tempfile
from pathlib import Path

CLIPSYN = Path(sys.executable).with_name("clipsyn")


def call(*arguments: str, expected: int = 0) -> str:
    done = subprocess.run([CLIPSYN, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != expected or "Traceback" in done.stderr:
        sys.exit(f"clipsyn {' '.join(arguments)} gave {done.returncode}:\n{done.stderr}")
    return done.stdout + done.stderr


reading = ["zeroshot", "ls", "info", "verify", "catalog"]
for command in [*reading, "extract", "run", "rm", "evaluate", "fit", "predict", "plot"]:
    call(command, "--help")
for name in ("backbones", "datasets"):
    call("catalog", name)
assert "clipsyn[extract]" in call("extract", "store", "--dataset", "emoji-food", expected=1)
assert "clipsyn[report]" in call("plot", "upset", "nowhere", "-o", "upset.svg", expected=1)
call("ls", "nowhere", expected=4)
call("fit", "nowhere", "-d", "emoji-food", "-o", "router", expected=4)

LEARNING = """
import sys
import numpy as np
import clipsyn

draw = np.random.default_rng(0)
labels = np.arange(24) % 3
logits = draw.normal(size=(24, 2, 3)) + 3 * np.eye(3)[labels, None]
embeddings = [draw.normal(size=(24, 4)) for _ in range(2)]
embeddings = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in embeddings]
support = clipsyn.Pool.of(logits, labels, embeddings)
nlc = clipsyn.NLC(steps=5).fit(support)
clipsyn.save_router(sys.argv[1], nlc, support)
assert (clipsyn.load_router(sys.argv[1]).predict(support) == nlc.predict(support)).all()
assert "torch" not in sys.modules
"""
with tempfile.TemporaryDirectory() as folder:
    router = str(Path(folder) / "router")
    subprocess.run([sys.executable, "-c", LEARNING, router], check=True)
    assert "plain arrays" in call("predict", router, folder, expected=3)
