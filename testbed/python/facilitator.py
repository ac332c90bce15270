"""The facilitator of PyPI x402 2.x, exact, both versions, behind FastAPI.

Environment: RPC_URL, FACILITATOR_KEY. Prints its own URL as one JSON line once it listens.
"""

import json
import os
import socket

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from x402 import x402FacilitatorSync
from x402.mechanisms.evm.exact.register import register_exact_evm_facilitator
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer
from x402.schemas import parse_payment_payload, parse_payment_requirements

facilitator = register_exact_evm_facilitator(
    x402FacilitatorSync(),
    FacilitatorWeb3Signer(private_key=os.environ["FACILITATOR_KEY"], rpc_url=os.environ["RPC_URL"]),
    networks="eip155:84532",
)
app = FastAPI()


@app.get("/supported")
def supported() -> JSONResponse:
    """What can be paid."""
    return JSONResponse(facilitator.get_supported().model_dump(by_alias=True, exclude_none=True))


async def run(step, request: Request) -> JSONResponse:
    """One step of a payment."""
    body = await request.json()
    payload = parse_payment_payload(body["paymentPayload"])
    requirements = parse_payment_requirements(payload.x402_version, body["paymentRequirements"])
    outcome = await run_in_threadpool(step, payload, requirements)
    return JSONResponse(outcome.model_dump(by_alias=True, exclude_none=True))


@app.post("/verify")
async def verify(request: Request) -> JSONResponse:
    """Would it settle?"""
    return await run(facilitator.verify, request)


@app.post("/settle")
async def settle(request: Request) -> JSONResponse:
    """Move the money."""
    return await run(facilitator.settle, request)


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
