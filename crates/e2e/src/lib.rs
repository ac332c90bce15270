//! End-to-end tests: the real binary, a real EVM node, real clients and facilitators.
