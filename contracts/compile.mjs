// Compiles every contract here to its own .json, byte for byte the same everywhere.
// `--check` writes nothing and exits 1 when a committed file is not what the source compiles to.
import { readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

// Contracts by source.
const wanted = {
  "TestUsd.sol": ["TestUsd"],
  "Permit2.sol": ["Permit2"],
  "Permit2Proxies.sol": ["ExactPermit2Proxy", "UptoPermit2Proxy"],
  "SmartWallets.sol": ["SmartWalletFactory", "HostileFactory"],
};

const here = (name) => new URL(name, import.meta.url);
const source = (name) => ({ content: readFileSync(here(name), "utf8") });
const input = {
  language: "Solidity",
  sources: Object.fromEntries(Object.keys(wanted).map((name) => [name, source(name)])),
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

for (const [name, contracts] of Object.entries(wanted)) for (const contract of contracts) keep(name, contract);

function keep(name, contract) {
  const { abi, evm } = output.contracts[name][contract];
  const compiled = {
    contract,
    solc: solc.version(),
    abi,
    bytecode: `0x${evm.bytecode.object}`,
    runtime: `0x${evm.deployedBytecode.object}`,
  };
  const text = `${JSON.stringify(compiled, null, 2)}\n`;
  const file = here(`${contract}.json`);
  if (!process.argv.includes("--check")) return writeFileSync(file, text);
  let committed = "";
  try {
    committed = readFileSync(file, "utf8");
  } catch {}
  if (committed !== text) {
    process.stderr.write(`${contract}.json is not what ${name} compiles to: run \`npm run compile\` in contracts/ and commit it\n`);
    process.exitCode = 1;
  }
}
