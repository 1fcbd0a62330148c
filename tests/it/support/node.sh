# A private RabbitMQ node and its epmd, as children of a test process.
#   bash node.sh DIR AMQP_PORT DIST_PORT EPMD_PORT
# DIR may hold a rabbitmq.conf.
# Obeys lines on standard input: `start`, `kill` (-9), `pause`, `resume`; answers `done` to each. When standard input ends, because the test process
# closed it or died, of whatever cause, everything that was started is killed and DIR is removed.
set -u
trap '' INT HUP TERM
dir=$1 amqp=$2 dist=$3 epmd=$4
export HOME=$dir LC_ALL=C.UTF-8
export RABBITMQ_NODENAME=node$amqp@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$amqp RABBITMQ_DIST_PORT=$dist
export RABBITMQ_MNESIA_BASE=$dir/mnesia RABBITMQ_LOG_BASE=$dir/log RABBITMQ_SCHEMA_DIR=$dir/schema
export RABBITMQ_GENERATED_CONFIG_DIR=$dir/generated RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf RABBITMQ_CONF_ENV_FILE=/dev/null
export RABBITMQ_ENABLED_PLUGINS_FILE=$dir/enabled_plugins RABBITMQ_PID_FILE=$dir/pid
export ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$epmd ERL_CRASH_DUMP=$dir/erl_crash.dump
# Schedulers that sleep at once: tests share few cores.
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
(umask 077; head -c16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/.erlang.cookie"; chmod 400 "$dir/.erlang.cookie")
echo '[].' >"$dir/enabled_plugins"
[ -e "$dir/rabbitmq.conf" ] || : >"$dir/rabbitmq.conf"
{ env | grep -E '^(RABBITMQ_|ERL_|HOME=|LC_ALL=)' | sed "s/=/='/;s/\$/'/;s/^/export /"; } >"$dir/env"

epmd -address 127.0.0.1 -port "$epmd" </dev/null >/dev/null 2>&1 &
epmd_pid=$!
node=

# A session of its own, so that the whole of it can be killed.
start_node() {
  setsid /usr/lib/rabbitmq/bin/rabbitmq-server </dev/null >>"$dir/console" 2>&1 &
  node=$!
}

kill_node() {
  [ -n "$node" ] || return 0
  { kill -9 -- "-$node"; wait "$node"; } 2>/dev/null
  node=
}

# Whether a thread of it is not stopped yet: a signal reaches one first, and the others when that one gets its turn.
goes_on() {
  cat /proc/[0-9]*/task/[0-9]*/stat 2>/dev/null | sed -n 's/.*) \([A-Za-z]\) [0-9]* \([0-9]*\) .*/\1 \2/p' |
    grep -v '^[TtZX] ' | grep -q " $node\$"
}

while read -r command; do
  case $command in
    start) start_node ;;
    kill) kill_node ;;
    pause) kill -STOP -- "-$node"; while goes_on; do sleep 0.01; done ;;
    resume) kill -CONT -- "-$node" ;;
  esac
  echo done
done
kill_node
{ kill -9 "$epmd_pid"; wait "$epmd_pid"; } 2>/dev/null
rm -rf "$dir"
