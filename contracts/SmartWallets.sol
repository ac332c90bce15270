// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// A smart wallet for tests. Who its owner is, is part of the code that its address is made from.
contract SmartWallet {
    bytes4 private constant ERC1271_MAGIC = 0x1626ba7e;

    address public immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    /// ERC-1271: whether the owner's key has signed, with `r`, `s` and `v`.
    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        if (signature.length != 65) return 0xffffffff;
        address signer = ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), bytes32(signature[32:64]));
        return signer != address(0) && signer == owner ? ERC1271_MAGIC : bytes4(0xffffffff);
    }
}

/// Deploys wallets at addresses that are known before, as the factories of ERC-4337 do.
contract SmartWalletFactory {
    /// The owner's wallet, deployed if it was not.
    function createAccount(address owner, bytes32 salt) external returns (address account) {
        account = accountOf(owner, salt);
        if (account.code.length == 0) new SmartWallet{salt: salt}(owner);
    }

    /// Where the owner's wallet is, or will be (EIP-1014).
    function accountOf(address owner, bytes32 salt) public view returns (address) {
        bytes32 code = keccak256(abi.encodePacked(type(SmartWallet).creationCode, abi.encode(owner)));
        return address(uint160(uint256(keccak256(abi.encodePacked(bytes1(0xff), address(this), salt, code)))));
    }
}

/// What a buyer could name as a factory who means no good.
contract HostileFactory {
    uint256 private burnt;

    function fail() external pure {
        revert("no wallet today");
    }

    /// Deploys the wallet, and takes the gas of so many writes more.
    function burn(SmartWalletFactory factory, address owner, bytes32 salt, uint256 writes) external {
        factory.createAccount(owner, salt);
        for (uint256 write = 0; write < writes; write++) burnt++;
    }
}
