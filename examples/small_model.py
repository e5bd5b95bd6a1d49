"""Write a small language model with random weights to play with: python examples/small_model.py runs/small.onnx"""

from __future__ import annotations

import string
import sys
from pathlib import Path

CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"


def small_model(path: Path) -> Path:
    """Export the model to ``path`` unless it is there.  A trained one comes from ``rnncore train --out PATH``."""
    if path.exists():
        return path
    import torch

    from rnncore import CellConfig, LanguageModel, LanguageModelConfig
    from rnncore.export import export
    from rnncore.runtime.text.language_model import TOKENIZER_KEY
    from rnncore.text import character_vocabulary

    torch.manual_seed(0)
    vocabulary = character_vocabulary([CHARACTERS])
    model = LanguageModel(LanguageModelConfig(len(vocabulary), 32, (CellConfig.named("lstm", 128),) * 2)).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.tensor([[0, 1, len(vocabulary) - 1], [1, 0, 1]])
    export(model, path, example, streaming=True, pick=True, metadata={TOKENIZER_KEY: vocabulary.to_json()})
    return path


if __name__ == "__main__":
    print(small_model(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/small.onnx")))
