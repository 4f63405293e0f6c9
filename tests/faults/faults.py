"""The faults: each strikes while jobs are published and run, makes good again what an operator would, and returns."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rmqjobs.testing.broker import PrivateNode
from tests.faults.stages import Stage
from tests.faults.teams import WITH_CHILDREN, Load, descendants, send, until

LONG = Load(jobs=8, rate=4, first=1_000_000)
QUICK, CLUSTER, SLOW = "quick", "cluster", "slow"


@dataclass(frozen=True)
class Fault:
    """One of them.

    Args:
        name: In the table.
        strike: Does it, and returns when it is over.
        kind: Quick ones also run in CI; cluster ones need three nodes.
        load: What is published meanwhile.
        environ: Of the publishers.
        only: The systems it can befall; all when empty.
        prepare: Done before anything is published.
    """

    name: str
    strike: Callable[[Stage, Load], None]
    kind: str = QUICK
    load: Load = field(default_factory=Load)
    environ: dict[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    prepare: Callable[[Stage], None] | None = None


def nothing(_stage: Stage, _load: Load) -> None:
    """For comparison."""


# -- processes


def kill_a_worker(stage: Stage, _load: Load) -> None:
    for team in stage.teams:
        team.replace_worker()


def kill_both_workers(stage: Stage, _load: Load) -> None:
    for team in stage.teams:
        team.replace_worker(0)
        team.replace_worker(1)


def kill_a_child(stage: Stage, _load: Load) -> None:
    for team in stage.teams:
        if team.name in WITH_CHILDREN:
            until(team.children, 5)
            send(signal.SIGKILL, team.children()[-1:])


def kill_the_publisher(stage: Stage, load: Load) -> None:
    for team in stage.teams:
        team.replace_publisher(load)


def freeze_a_worker(stage: Stage, _load: Load) -> None:
    """For longer than it takes RabbitMQ to give its jobs to the other one."""
    frozen = [pid for team in stage.teams for pid in (team.workers[0].pid, *descendants(team.workers[0].pid))]
    send(signal.SIGSTOP, frozen)
    time.sleep(18)
    send(signal.SIGCONT, frozen)


# -- the network


def cut(stage: Stage, _load: Load) -> None:
    stage.proxy.cut()


def reset(stage: Stage, _load: Load) -> None:
    stage.proxy.reset()


def half_open(stage: Stage, _load: Load) -> None:
    stage.proxy.swallow()


def away(stage: Stage, _load: Load) -> None:
    stage.proxy.refuse()
    stage.proxy.cut()
    time.sleep(5)
    stage.proxy.admit()


def slow(stage: Stage, _load: Load) -> None:
    stage.proxy.slow(0.1)
    time.sleep(5)
    stage.proxy.slow(0)


# -- the broker


def kill_the_broker(stage: Stage, _load: Load) -> None:
    stage.node.kill()
    stage.node.start()


def close_the_connections(stage: Stage, _load: Load) -> None:
    stage.close_connections()


def memory_alarm(stage: Stage, _load: Load) -> None:
    stage.node.ctl("set_vm_memory_high_watermark", "0")
    time.sleep(5)
    stage.node.ctl("set_vm_memory_high_watermark", "0.6")


def disk_alarm(stage: Stage, _load: Load) -> None:
    stage.node.ctl("set_disk_free_limit", "1000000000000")
    time.sleep(12)  # it looks at its disk every ten seconds
    stage.node.ctl("set_disk_free_limit", "50MB")


def delete_the_queues(stage: Stage, load: Load) -> None:
    """When they are empty: what is in a queue goes with it."""
    for team in stage.teams:
        team.stop_publishing()
    until(lambda: all(team.has_published() and not team.unfinished(load) for team in stage.teams), 20)
    for team in stage.teams:
        stage.node.ctl("delete_queue", team.queues["waiting"][0])
        team.resume_publishing(load)


def change_the_password(stage: Stage, _load: Load) -> None:
    stage.node.ctl("change_password", "guest", "another")
    stage.close_connections()
    time.sleep(4)
    stage.node.ctl("change_password", "guest", "guest")


def lose_patience(stage: Stage, load: Load) -> None:
    """The broker takes jobs back after three seconds: 406 before 4.3, a cancelled consumer since; these run for ten."""
    until(lambda: all(team.has_started(load, least=2) for team in stage.teams), 20)
    time.sleep(12)
    _set_patience(stage, 1_800_000, 60_000)


def make_impatient(stage: Stage) -> None:
    _set_patience(stage, 3_000, 1_000)
    stage.close_connections()  # the limit counts for channels that are opened from now on
    time.sleep(5)


def _set_patience(stage: Stage, limit: int, interval: int) -> None:
    for name, value in (("consumer_timeout", limit), ("channel_tick_interval", interval)):
        stage.node.ctl("eval", f"application:set_env(rabbit, {name}, {value}).")


# -- a cluster


def kill_the_leader(stage: Stage, _load: Load) -> None:
    _away_for(stage.leader_of(stage.teams[0]), 5)


def move_the_leaders(stage: Stage, _load: Load) -> None:
    """To another node, as rebalancing does."""
    for team in stage.teams:
        leader = stage.leader_of(team)
        other = next(node for node in stage.nodes if node is not leader)
        name = team.queues["waiting"][0]
        stage.node.ctl(
            "eval",
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>)),'
            f" catch rabbit_quorum_queue:transfer_leadership(Q, '{other.name}').",
        )


def cut_off_the_leader(stage: Stage, _load: Load) -> None:
    """The node that leads our queue is alone, with the clients that are connected to it; the two others go on."""
    alone = stage.leader_of(stage.teams[0])
    others = [node for node in stage.nodes if node is not alone]
    alone.cut_off_from(*others)
    time.sleep(10)
    alone.reach(*others)


def restart_one_after_the_other(stage: Stage, _load: Load) -> None:
    for node in stage.nodes:
        node.stop()
        node.start()
        time.sleep(2)


def _away_for(node: PrivateNode, seconds: float) -> None:
    node.kill()
    time.sleep(seconds)
    node.start()


FAULTS = (
    Fault("none", nothing),
    Fault("worker killed", kill_a_worker),
    Fault("both workers killed", kill_both_workers),
    Fault("child process killed", kill_a_child, environ={"FAULTS_IN_CHILDREN": "1"}, only=WITH_CHILDREN),
    Fault("publisher killed", kill_the_publisher),
    Fault("worker frozen for 18 s", freeze_a_worker, SLOW),
    Fault("connections cut", cut),
    Fault("connections reset", reset, SLOW),
    Fault("connections half-open", half_open, SLOW),
    Fault("network away for 5 s", away),
    Fault("network slow for 5 s", slow, SLOW),
    Fault("connections closed by the broker", close_the_connections, SLOW),
    Fault("broker killed and started", kill_the_broker),
    Fault("memory alarm for 5 s", memory_alarm, SLOW),
    Fault("disk alarm for 12 s", disk_alarm, SLOW),
    Fault("work queue deleted", delete_the_queues),
    Fault("password changed for 4 s", change_the_password, SLOW),
    Fault("jobs beyond consumer_timeout", lose_patience, SLOW, LONG, prepare=make_impatient),
    Fault("queue leader killed", kill_the_leader, CLUSTER),
    Fault("queue leaders moved", move_the_leaders, CLUSTER),
    Fault("queue leader cut off and healed", cut_off_the_leader, CLUSTER),
    Fault("nodes restarted in turn", restart_one_after_the_other, CLUSTER),
)
