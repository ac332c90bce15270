//! What obol writes, read by x402-types and x402-chain-eip155, and the other way round. Tests only.
