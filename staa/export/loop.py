"""A network that staa exported in the form "step", run step by step. It needs NumPy and onnxruntime alone.

python NAME.py frames.npy        the prediction after each step, of frames [T, N, C, H, W]

from NAME import Stream          # in a program of your own
stream = Stream("NAME.onnx")
for frame in frames:             # [N, C, H, W], float32, prepared as the file's "preprocessing" says
    logits = stream(frame)       # [N, classes]; the answer after step t is their mean over the steps so far
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Stream:
    """A network and where it stands: stream(frame) -> logits of the next step.

    Names, shapes and types of the state are those that the file tells of itself; at rest it is 0. A network that was built for
    T steps has T.
    """

    def __init__(self, path: str | Path):
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["staa"])
        if self.about["form"] != "step":
            raise ValueError(f"{path} holds a whole window, not one step")
        self.steps = 0
        self.state: dict[str, Any] = {}

    def reset(self, batch: int) -> None:
        """Begin anew, with so many samples."""
        self.steps = 0
        self.state = {
            s["name"]: np.zeros([batch if size is None else size for size in s["shape"]], s["dtype"])
            for s in self.about["state"]
        }

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        if self.steps == 0:
            self.reset(len(frame))
        if self.about["steps"] is not None and self.steps == self.about["steps"]:
            raise ValueError(f"the network was built for {self.steps} steps and has seen them all: call reset")
        name = self.about["input"]["name"]
        outputs = ["logits", *(s["next"] for s in self.about["state"])]
        logits, *state = self.session.run(outputs, {name: np.asarray(frame, np.float32), **self.state})
        self.state = dict(zip(self.state, state, strict=True))
        self.steps += 1
        return np.asarray(logits)


def main() -> None:
    stream, total = Stream(Path(__file__).with_suffix(".onnx")), 0.0
    if len(sys.argv) != 2:
        sys.exit(f"give a file: python {Path(__file__).name} frames.npy, frames {stream.about['input']['shape']} of each step")
    for step, frame in enumerate(np.load(sys.argv[1], allow_pickle=False), 1):
        total = total + stream(frame)
        predicted = [stream.about["classes"][k] for k in np.argmax(total / step, -1)]
        print(f"step {step}: {', '.join(map(ascii, predicted))}")


if __name__ == "__main__":
    main()
