# What is done on a host of a cluster, in a POSIX shell: `sh -c "$(cat agent.sh)" agent NAME OWNER VERB ARGUMENT...`.
#
# All that belongs to the cluster NAME lies in one directory, DIR. A service there is a unit of the user's systemd, where there
# is one that lets services outlive the session, else a process of a session of its own. SERVICE.pid then holds the process's id
# and its start time, and the boot that this is measured from, so that no other process is ever taken for it.
# The file `cluster` there tells which inventory the cluster belongs to (owner.py); commands of another end with 77.
set -u

cluster=$1 owner=$2 verb=$3
shift 3
DIR=${XDG_STATE_HOME:-$HOME/.local/state}/tessera/$cluster
[ -n "${XDG_RUNTIME_DIR:-}" ] || XDG_RUNTIME_DIR=/run/user/$(id -u)
export XDG_RUNTIME_DIR

fail() {
  echo "$*" >&2
  exit 1
}

if [ "$owner" != anybody ] && [ -e "$DIR/cluster" ] && ! grep -qxF "identity $owner" "$DIR/cluster"; then
  echo "$(sed -n 's/^inventory //p' "$DIR/cluster") ($(sed -n 's/^identity //p' "$DIR/cluster"))" >&2
  exit 77
fi

has_systemd() {
  command -v systemd-run >/dev/null && systemctl --user show-environment >/dev/null 2>&1 || return 1
  # Without it, the services end with the last session of the user.
  [ "$(loginctl show-user "$(id -u)" --property=Linger --value 2>/dev/null)" = yes ] || loginctl enable-linger 2>/dev/null
}

unit() { echo "tessera-$cluster-$1.service"; }

# start_of PID: when the process began, in ticks since boot. Nothing for one that is gone, or ended and not yet waited for.
start_of() { sed -n 's/^.*) //p' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

boot() { cat /proc/sys/kernel/random/boot_id; }

# pid_of SERVICE: of the process that runs, if one does.
pid_of() {
  [ -e "$DIR/$1.pid" ] || return 0
  read -r pid start booted <"$DIR/$1.pid" || return 0
  [ "$booted" = "$(boot)" ] && [ "$(start_of "$pid")" = "$start" ] && echo "$pid"
}

state_of() {
  if [ -e "$DIR/$1.unit" ]; then
    systemctl --user is-active "$(unit "$1")" 2>/dev/null
  elif [ -n "$(pid_of "$1")" ]; then
    echo active
  else
    echo inactive
  fi
}

is_over() { case $(state_of "$1") in inactive | failed) return 0 ;; esac; return 1; }

send() {
  if [ -e "$DIR/$1.unit" ]; then
    systemctl --user kill --kill-whom=main -s "$2" "$(unit "$1")" 2>/dev/null
  else
    pid=$(pid_of "$1")
    [ -z "$pid" ] || kill -s "$2" "$pid"
  fi
}

# stop SERVICE SIGNAL SECONDS: 0 seconds wait for ever.
stop() {
  if is_over "$1"; then
    echo "was not running"
  elif [ -e "$DIR/$1.unit" ] && [ "$2" = INT ]; then
    # The unit knows the signal and how long to wait, and is not started again.
    systemctl --user stop "$(unit "$1")" && echo "stopped"
  else
    send "$1" "$2"
    waited=0
    until is_over "$1"; do
      if [ "$3" -gt 0 ] && [ "$waited" -ge $(($3 * 5)) ]; then
        send "$1" KILL
      fi
      sleep 0.2
      waited=$((waited + 1))
    done
    echo "stopped"
  fi
  [ ! -e "$DIR/$1.unit" ] || systemctl --user stop "$(unit "$1")" 2>/dev/null
  [ ! -e "$DIR/$1.unit" ] || systemctl --user reset-failed "$(unit "$1")" 2>/dev/null
  rm -f "$DIR/$1.pid" "$DIR/$1.unit" "$DIR/$1.command"
}

# trouble SERVICE: the last that its log complains of, else its last line.
trouble() {
  said=$({ grep -i -e warning -e error -- "$DIR/$1.log" || cat "$DIR/$1.log"; } 2>/dev/null | tail -n 1)
  echo "${said:-its log is empty}"
}

case $verb in
  # What the host is. One KEY=VALUE a line.
  probe)
    echo "clock=$(date +%s.%N)"
    echo "machine=$(uname -m)"
    echo "directory=$DIR"
    has_systemd && echo "systemd=yes" || echo "systemd=no"
    echo "memory=$(awk '/^MemAvailable:/ { printf "%.0f", $2 * 1024 }' /proc/meminfo)"
    PATH=$PATH:/sbin:/usr/sbin
    if ldconfig -p 2>/dev/null | grep -q 'libopenblas\.so\.0'; then echo "openblas=yes"; else echo "openblas=no"; fi
    for file in "$DIR"/tessera-*; do [ ! -e "$file" ] || echo "has=${file##*/}"; done
    for file in "$DIR"/tls/*; do [ ! -e "$file" ] || echo "tls=$(sha256sum <"$file" | cut -c1-64) ${file##*/}"; done
    [ ! -e "$DIR/cluster" ] || sed 's/^/record=/' "$DIR/cluster"
    for directory in "$@"; do [ -d "$directory" ] || echo "lacks=$directory"; done
    ;;
  # record: which inventory the cluster belongs to, and its services.
  record) cat "$DIR/cluster" 2>/dev/null || : ;;
  # put FILE MODE: takes a file from the standard input, whole or not at all.
  put)
    # Hosts may share their homes.
    new="$DIR/$1.$(uname -n).$$.new"
    umask 077 && mkdir -p "$(dirname "$new")" && cat >"$new" && chmod "$2" "$new" && mv "$new" "$DIR/$1"
    ;;
  # version FILE: runs the executable, or says why it does not run.
  version)
    "$DIR/$1" --version && exit 0
    ldd "$DIR/$1" 2>&1 | grep -e 'not found' >&2
    exit 1
    ;;
  # reach EXECUTABLE ADDRESS WORKER...: whether this host can reach the coordinator's, where nobody need listen yet. Workers that
  # run, and look for that address, find out for themselves.
  reach)
    file=$DIR/$1 address=$2 asks=no
    shift 2
    for service in "$@"; do
      if is_over "$service" || ! grep -qxF -e "$address" "$DIR/$service.command"; then asks=yes; fi
    done
    [ "$asks" = yes ] || exit 0
    words=$("$file" status --coordinator "$address" --timeout 5 2>&1 >/dev/null) && exit 0
    case $words in
      *"connection was refused"*) ;;
      *"no coordinator answers"*) fail "${words%% — *}" ;;
    esac
    ;;
  # start SERVICE EXECUTABLE ROLE OPTION...: unless it runs like that already. Running otherwise, it is started anew.
  start)
    service=$1 executable=$DIR/$2 how=started
    shift
    # A service trusts one authority as long as it runs.
    command=$(printf '%s\n' "$@" "of $owner")
    if ! is_over "$service"; then
      [ "$command" != "$(cat "$DIR/$service.command" 2>/dev/null)" ] || { echo "runs already"; exit 0; }
      how="restarted with other options"
      [ "$1" = "$(head -n 1 "$DIR/$service.command")" ] || how="restarted with another executable"
      grep -qxF -e "of $owner" "$DIR/$service.command" || how="restarted for this inventory"
      stop "$service" INT 60 >/dev/null
    fi
    shift
    mkdir -p "$DIR/no-inputs"
    [ ! -e "$DIR/$service.log" ] || mv "$DIR/$service.log" "$DIR/$service.log.1"
    rm -f "$DIR/$service.pid" "$DIR/$service.unit"
    printf '%s\n' "$command" >"$DIR/$service.command"
    if has_systemd; then
      : >"$DIR/$service.unit"
      systemctl --user reset-failed "$(unit "$service")" 2>/dev/null
      systemd-run --user --quiet --collect --unit="$(unit "$service")" --description="Tessera $service of $cluster" \
        --property=Type=notify --property=TimeoutStartSec=1h --property=TimeoutStopSec=60 \
        --property=KillSignal=SIGINT --property=SuccessExitStatus=130 --property=WatchdogSec=120 \
        --property=WatchdogSignal=SIGKILL --property=Restart=on-failure --property=RestartSec=2 \
        --property=RestartPreventExitStatus="64 65 66 76 77" --property=LimitNOFILE=65536 \
        --property=StandardOutput="append:$DIR/$service.log" --property=StandardError="append:$DIR/$service.log" \
        "$executable" "$@" || fail "$(trouble "$service")"
      echo "$how as a user service"
    else
      # The shell writes its own id and start time before it becomes the service.
      # shellcheck disable=SC2016
      DIR=$DIR SERVICE=$service setsid sh -c '
        start=$(sed -n "s/^.*) //p" /proc/$$/stat | cut -d" " -f20)
        echo "$$ $start $(cat /proc/sys/kernel/random/boot_id)" >"$DIR/$SERVICE.pid"
        exec "$@"' sh "$executable" "$@" </dev/null >"$DIR/$service.log" 2>&1 &
      waited=0
      while :; do
        sleep 0.2
        waited=$((waited + 1))
        if [ -e "$DIR/$service.pid" ] && is_over "$service"; then
          rm -f "$DIR/$service.pid" "$DIR/$service.command"
          fail "$(trouble "$service")"
        fi
        case $1 in
          # It reads its journal first.
          coordinator) grep -q '^ready: ' "$DIR/$service.log" && break ;;
          *) [ "$waited" -lt 5 ] || break ;;
        esac
      done
      echo "$how"
    fi
    ;;
  # state SERVICE...: SERVICE, state, id of the process, executable, a line each.
  state)
    for service in "$@"; do
      pid=$(pid_of "$service")
      [ ! -e "$DIR/$service.unit" ] || pid=$(systemctl --user show --property=MainPID --value "$(unit "$service")")
      program=$(head -n 1 "$DIR/$service.command" 2>/dev/null)
      echo "$service $(state_of "$service") ${pid:--} ${program:--}"
    done
    ;;
  trouble) trouble "$@" ;;
  # logs LINES FOLLOW SERVICE...
  logs)
    lines=$1 follow=$2
    shift 2
    for service in "$@"; do
      [ -e "$DIR/$service.log" ] || continue
      if [ "$follow" = yes ]; then
        tail -n "$lines" -F "$DIR/$service.log" 2>/dev/null | sed -u "s|^|$service: |" &
      else
        # The log of the life before tells why that ended.
        cat "$DIR/$service.log.1" "$DIR/$service.log" 2>/dev/null | tail -n "$lines" | sed "s|^|$service: |"
      fi
    done
    if [ "$follow" = yes ]; then
      # The connection's end is the end of this input. No tail is left behind.
      cat >/dev/null
      trap : TERM
      kill 0
    fi
    ;;
  # tidy EXECUTABLE: removes those of other versions.
  tidy)
    for file in "$DIR"/tessera-*; do
      case $file in "$DIR/$1" | *.new) ;; *) rm -f "$file" ;; esac
    done
    ;;
  stop) stop "$@" ;;
  # purge: everything of the cluster on this host.
  purge)
    for file in "$DIR"/*.pid "$DIR"/*.unit; do
      [ ! -e "$file" ] || fail "$(basename "$file" | sed 's/\.[a-z]*$//') has not been stopped"
    done
    [ -e "$DIR" ] || { echo "nothing was there"; exit 0; }
    rm -rf "$DIR" || exit 1
    # That of all clusters, if this was the last.
    rmdir "${DIR%/*}" 2>/dev/null
    echo "removed $DIR"
    ;;
  *) fail "unknown verb $verb" ;;
esac
