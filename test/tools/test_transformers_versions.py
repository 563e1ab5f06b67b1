# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import transformers_versions
from packaging.requirements import Requirement


def test_the_oldest_is_the_lower_bound_and_the_newest_may_be_beyond_the_upper_one():
    allowed = Requirement("transformers>=5.19,<5.25")
    assert transformers_versions.wanted_versions(allowed) == {
        "oldest": "transformers==5.19",
        "newest": "transformers>=5.19,<6",
    }


def test_the_other_requirements_of_robot_and_laboratory_still_hold():
    requirements = transformers_versions.package_requirements()
    assert {"transformers", "torch", "accelerate", "peft"} <= set(requirements)
    assert not {"pytest", "rerun-sdk"} & set(requirements)


def test_the_tests_exist():
    for test in transformers_versions.TESTS:
        assert (transformers_versions.ROOT / test).exists()
