"""Questions people ask about losses, answered with numbers and figures that are made when they are asked."""

from .answer import Answer
from .drawing import draw_classification, draw_gradients, draw_landscape
from .fields import CASES, FAMILY, read_losses, read_size
from .report import PAGE, QUESTIONS, Question, advise, answer_text

__all__ = [
    "CASES",
    "FAMILY",
    "PAGE",
    "QUESTIONS",
    "Answer",
    "Question",
    "advise",
    "answer_text",
    "draw_classification",
    "draw_gradients",
    "draw_landscape",
    "read_losses",
    "read_size",
]
