//! The play token: its compiled code and its interface. Source: `contracts/TestUsd.sol`.

use alloy_primitives::Bytes;
use alloy_sol_types::sol;
use serde::Deserialize;

use crate::SandboxError;

sol! {
    interface TestUsd {
        event Transfer(address indexed from, address indexed to, uint256 value);
        event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);

        function initialize(string name, string version, string symbol) external;
        function mint(address to, uint256 value) external;
        function balanceOf(address owner) external view returns (uint256);
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
        function transferWithAuthorization(
            address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature
        ) external;
        function transferWithAuthorization(
            address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s
        ) external;
    }
}

/// What `contracts/compile.mjs` writes, as far as it is needed here.
#[derive(Deserialize)]
struct Compiled {
    runtime: Bytes,
}

/// The token's runtime code, to be placed at its address.
pub fn runtime_code() -> Result<Bytes, SandboxError> {
    let compiled: Compiled = serde_json::from_str(include_str!("../../../contracts/TestUsd.json"))
        .map_err(|cause| SandboxError::Evm { cause: format!("the embedded token: {cause}") })?;
    Ok(compiled.runtime)
}
