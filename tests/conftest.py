"""One thread each: the suite runs in as many processes as there are cores."""

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("boxloss", deadline=None, print_blob=True)
hypothesis.settings.load_profile("boxloss")
