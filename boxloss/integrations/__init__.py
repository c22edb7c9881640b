"""Any box loss in the detectors that people train: one file per framework, each with one verb.

``boxloss.integrations.<framework>.attach(model, loss)`` puts a loss in the place of the framework's own and returns an
`Attachment`, whose ``detach()`` puts that one back. Assigners and matchers are left alone, so that a comparison of two
losses compares nothing else. No framework is imported before it is needed, and none of its source is repeated here.
"""

from ._attach import Attachment, LossLike

__all__ = ["Attachment", "LossLike"]
