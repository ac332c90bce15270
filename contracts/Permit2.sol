// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// A stand-in for Permit2's signature transfers, for the sandbox and for tests: one payer, one token, one
/// witness. It has the interface, the errors, the nonces and the EIP-712 types of the real contract, as its
/// documentation describes them. Tests against the real code show that both take and refuse the same.
///
/// Nothing depends on the constructor: the runtime code may be placed at any address of any chain.
contract Permit2 {
    struct TokenPermissions {
        address token;
        uint256 amount;
    }

    struct PermitTransferFrom {
        TokenPermissions permitted;
        uint256 nonce;
        uint256 deadline;
    }

    struct SignatureTransferDetails {
        address to;
        uint256 requestedAmount;
    }

    bytes32 private constant DOMAIN_TYPEHASH = keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)");
    bytes32 private constant TOKEN_PERMISSIONS_TYPEHASH = keccak256("TokenPermissions(address token,uint256 amount)");
    /// The witness is the last member, and its type comes behind.
    string private constant TYPE_STUB =
        "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,";
    /// What ERC-1271 `isValidSignature(bytes32,bytes)` answers when the signature is good; also its selector.
    bytes4 private constant ERC1271_MAGIC = 0x1626ba7e;

    /// One bit for each nonce: its upper 248 bits are the word, its lower 8 the bit.
    mapping(address owner => mapping(uint256 word => uint256 bits)) public nonceBitmap;

    event UnorderedNonceInvalidation(address indexed owner, uint256 word, uint256 mask);

    error SignatureExpired(uint256 signatureDeadline);
    error InvalidAmount(uint256 maxAmount);
    error InvalidNonce();
    error InvalidSignatureLength();
    error InvalidSignature();
    error InvalidSigner();
    error InvalidContractSignature();

    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPEHASH, keccak256("Permit2"), block.chainid, address(this)));
    }

    /// Moves a token for whoever was signed for (`msg.sender`), once.
    function permitWitnessTransferFrom(
        PermitTransferFrom calldata permit,
        SignatureTransferDetails calldata transferDetails,
        address owner,
        bytes32 witness,
        string calldata witnessTypeString,
        bytes calldata signature
    ) external {
        uint256 requested = transferDetails.requestedAmount;
        if (block.timestamp > permit.deadline) revert SignatureExpired(permit.deadline);
        if (requested > permit.permitted.amount) revert InvalidAmount(permit.permitted.amount);
        _useNonce(owner, permit.nonce);
        bytes32 message = keccak256(
            abi.encode(
                keccak256(abi.encodePacked(TYPE_STUB, witnessTypeString)),
                keccak256(abi.encode(TOKEN_PERMISSIONS_TYPEHASH, permit.permitted.token, permit.permitted.amount)),
                msg.sender,
                permit.nonce,
                permit.deadline,
                witness
            )
        );
        _verify(signature, keccak256(abi.encodePacked(hex"1901", DOMAIN_SEPARATOR(), message)), owner);
        (bool done, bytes memory said) = permit.permitted.token.call(
            abi.encodeWithSignature("transferFrom(address,address,uint256)", owner, transferDetails.to, requested)
        );
        require(done && (said.length == 0 ? permit.permitted.token.code.length != 0 : abi.decode(said, (bool))), "TRANSFER_FROM_FAILED");
    }

    /// Makes nonces of the caller worthless.
    function invalidateUnorderedNonces(uint256 wordPos, uint256 mask) external {
        nonceBitmap[msg.sender][wordPos] |= mask;
        emit UnorderedNonceInvalidation(msg.sender, wordPos, mask);
    }

    function _useNonce(address owner, uint256 nonce) private {
        uint256 bit = 1 << (nonce & 0xff);
        uint256 flipped = nonceBitmap[owner][nonce >> 8] ^= bit;
        if (flipped & bit == 0) revert InvalidNonce();
    }

    /// An account with a key signs with 65 bytes, or with 64 (ERC-2098); one with code answers by ERC-1271.
    function _verify(bytes calldata signature, bytes32 hash, address owner) private view {
        if (owner.code.length != 0) {
            (bool done, bytes memory said) =
                owner.staticcall(abi.encodeWithSelector(ERC1271_MAGIC, hash, signature));
            bool good = done && said.length >= 32 && bytes4(said) == ERC1271_MAGIC;
            if (!good) revert InvalidContractSignature();
            return;
        }
        bytes32 s;
        uint8 v;
        if (signature.length == 65) {
            s = bytes32(signature[32:64]);
            v = uint8(signature[64]);
        } else if (signature.length == 64) {
            bytes32 both = bytes32(signature[32:64]);
            s = both & bytes32(uint256(type(int256).max));
            v = uint8(uint256(both) >> 255) + 27;
        } else {
            revert InvalidSignatureLength();
        }
        address signer = ecrecover(hash, v, bytes32(signature[0:32]), s);
        if (signer == address(0)) revert InvalidSignature();
        if (signer != owner) revert InvalidSigner();
    }
}
