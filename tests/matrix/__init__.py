"""The versions that users have: ``scripts/matrix`` makes an environment for each and runs a part of the tests in it."""
