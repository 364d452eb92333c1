"""Our service beside its peers and beside bare loops: who takes part in which comparison."""

from collections.abc import Sequence

from benchmarks.bare_loop import PILLOW, SERVICE
from benchmarks.models import DOCUMENTED_MODEL, prepare_benchmark_model
from benchmarks.participants import (
    LoopParticipant,
    Participant,
    PeerParticipant,
    ServiceParticipant,
)
from benchmarks.peer_servers import Peer

OURS = "service"
BARE_LOOP = "bare loop"
PEERS_BARE_LOOP = "bare loop, Pillow"
FLOAT32 = "onnxruntime"
AUTO = "auto"


def same_engine(peers: Sequence[Peer]) -> list[Participant]:
    """Everybody calls the same function: our decoding, ONNX Runtime in float32."""
    model = prepare_benchmark_model(FLOAT32)
    return [
        ServiceParticipant(OURS, model),
        *(PeerParticipant(peer, model) for peer in peers),
        LoopParticipant(BARE_LOOP, SERVICE, model),
    ]


def out_of_the_box(peers: Sequence[Peer]) -> list[Participant]:
    """Ours chooses its engine; the peers serve PyTorch as their documentation does."""
    return [
        ServiceParticipant(OURS, prepare_benchmark_model(AUTO)),
        *(PeerParticipant(peer, DOCUMENTED_MODEL) for peer in peers),
    ]


def against_bare_loops() -> list[Participant]:
    """Ours as it comes, the same in a bare loop, and the bare loop that the peers could reach."""
    model = prepare_benchmark_model(AUTO)
    return [
        ServiceParticipant(OURS, model),
        LoopParticipant(BARE_LOOP, SERVICE, model),
        LoopParticipant(PEERS_BARE_LOOP, PILLOW, prepare_benchmark_model(FLOAT32)),
    ]
