"""Models: layers put together for one task."""

from rnncore.models.cell_config import CELLS, CellConfig
from rnncore.models.language_model import LanguageModel
from rnncore.models.language_model_config import LanguageModelConfig

__all__ = ["CELLS", "CellConfig", "LanguageModel", "LanguageModelConfig"]
