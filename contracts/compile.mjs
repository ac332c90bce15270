// Compiles TestUsd.sol to TestUsd.json, byte for byte the same everywhere.
// `--check` writes nothing and exits 1 when the committed file is not what the source compiles to.
import { readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

const here = (name) => new URL(name, import.meta.url);
const input = {
  language: "Solidity",
  sources: { "TestUsd.sol": { content: readFileSync(here("TestUsd.sol"), "utf8") } },
  settings: {
    evmVersion: "shanghai",
    optimizer: { enabled: true, runs: 200 },
    // No hash of the metadata: an edited comment does not change the code.
    metadata: { appendCBOR: false, bytecodeHash: "none" },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
  },
};

const output = JSON.parse(solc.compile(JSON.stringify(input)));
for (const { formattedMessage } of output.errors ?? []) process.stderr.write(formattedMessage);
if (output.errors?.length) process.exit(1);

const { abi, evm } = output.contracts["TestUsd.sol"].TestUsd;
const compiled = {
  contract: "TestUsd",
  solc: solc.version(),
  abi,
  bytecode: `0x${evm.bytecode.object}`,
  runtime: `0x${evm.deployedBytecode.object}`,
};
const text = `${JSON.stringify(compiled, null, 2)}\n`;
const file = here("TestUsd.json");

if (process.argv.includes("--check")) {
  let committed = "";
  try {
    committed = readFileSync(file, "utf8");
  } catch {}
  if (committed !== text) {
    process.stderr.write("TestUsd.json is not what TestUsd.sol compiles to: run `npm run compile` in contracts/ and commit it\n");
    process.exit(1);
  }
} else {
  writeFileSync(file, text);
}
