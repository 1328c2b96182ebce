from __future__ import annotations

import pytest

from tests.conftest import Finished
from tuwen.trainers.value.subsets import Verdicts


@pytest.fixture(scope="module")
def verdicts(finished: Finished) -> Verdicts:
    return Verdicts.of(str(finished.run))
