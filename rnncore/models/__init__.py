"""Models: layers put together for one task."""

from rnncore.runtime.errors import MissingExtraError

try:
    from rnncore.models.cell_config import CELLS, CellConfig
    from rnncore.models.classifier import Classifier
    from rnncore.models.embedder import Embedder
    from rnncore.models.encoder_decoder import EncoderDecoder
    from rnncore.models.encoder_decoder_config import EncoderDecoderConfig
    from rnncore.models.generator import Generator
    from rnncore.models.interpolated import InterpolatedLanguageModel
    from rnncore.models.language_model import LanguageModel
    from rnncore.models.language_model_config import LanguageModelConfig
    from rnncore.models.ngrams import Ngrams, NgramSizes
    from rnncore.models.pooling import POOLINGS, Pooling
    from rnncore.models.pretrained import Pretrained
    from rnncore.models.pretrainer import Pretrainer
    from rnncore.models.rater import Rater
    from rnncore.models.reader import Reader
    from rnncore.models.reader_config import ReaderConfig
    from rnncore.models.recogniser import Recogniser
    from rnncore.models.tagger import Tagger
    from rnncore.models.task_model import TaskModel, pad_sequences
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "train", "rnncore.models") from None

__all__ = [
    "CELLS",
    "POOLINGS",
    "CellConfig",
    "Classifier",
    "Embedder",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "Generator",
    "InterpolatedLanguageModel",
    "LanguageModel",
    "LanguageModelConfig",
    "NgramSizes",
    "Ngrams",
    "Pooling",
    "Pretrained",
    "Pretrainer",
    "Rater",
    "Reader",
    "ReaderConfig",
    "Recogniser",
    "Tagger",
    "TaskModel",
    "pad_sequences",
]
