# SPDX-License-Identifier: Apache-2.0
"""What a deliberate error is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A wrong formula: a snippet of the package, what replaces it, and the test that must fail."""

    name: str
    file: str
    original: str
    mutated: str
    test: str
