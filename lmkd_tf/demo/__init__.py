# SPDX-License-Identifier: Apache-2.0
"""A page on this machine on which a student is heard live."""
