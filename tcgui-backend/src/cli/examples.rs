//! The examples below the help of each verb.

pub(super) const APPLY_EXAMPLES: &str = "\
Examples:
  tcgui-backend apply lab/eth0 --delay 100ms --jitter 10ms --loss 1% --ttl 10m
  tcgui-backend apply 'lab*/*' --preset satellite-link
  tcgui-backend apply eth1 --change --rate 10mbit         keep what else is in force
  tcgui-backend apply eth0 --loss 5% --confirm-within 30s  undo it unless `confirm eth0` is run
  tcgui-backend apply lab/eth0 --file bad-wifi.json5 --dry-run

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no daemon answers, 4 target not found, 5 denied,
6 timeout or busy, 7 some of several targets failed.";

pub(super) const CLEAR_EXAMPLES: &str = "\
Examples:
  tcgui-backend clear lab/eth0
  tcgui-backend clear --all

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no daemon answers, 4 target not found, 5 denied,
6 timeout or busy, 7 some of several targets failed.";

pub(super) const CONFIRM_EXAMPLES: &str = "\
Example:
  tcgui-backend apply eth0 --loss 5% --confirm-within 30s && tcgui-backend confirm eth0";

pub(super) const UP_EXAMPLES: &str = "\
Example:
  tcgui-backend up lab/eth0";

pub(super) const DOWN_EXAMPLES: &str = "\
Example:
  tcgui-backend down 'lab*/eth0'";

pub(super) const SHOW_EXAMPLES: &str = "\
Examples:
  tcgui-backend show                      all interfaces
  tcgui-backend show --impaired --stats
  tcgui-backend show 'container:*/*' --watch
  tcgui-backend show --json | jq -r '.interfaces[] | select(.netem) | .interface'

Exit status: 0 shown, 1 failed, 2 wrong usage, 3 no daemon answers, 4 target not found, 6 timeout or busy.";

pub(super) const DIAGNOSE_EXAMPLES: &str = "\
Examples:
  tcgui-backend diagnose lab/eth0
  tcgui-backend diagnose lab/eth0 --to 10.0.0.2

Exit status: 0 the check was made, also if the address did not answer.";

pub(super) const SCENARIO_EXAMPLES: &str = "\
Examples:
  tcgui-backend scenario list
  tcgui-backend scenario start mobile-degradation lab/eth0 --wait
  tcgui-backend scenario stop '*/*'";

pub(super) const PRESET_EXAMPLES: &str = "\
Examples:
  tcgui-backend preset list
  tcgui-backend preset show satellite-link";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  tcgui-backend run lab/eth0 --preset satellite-link -- ping -c 20 10.0.0.2
  tcgui-backend run lab/eth0 lab/eth1 --loss 5% -- make integration-test

Exit status: that of the command, 128 + N after signal N; 125 if the interface could not be impaired, 126 if the
command cannot be executed, 127 if it is not found.";

pub(super) const WAIT_FOR_EXAMPLES: &str = "\
Examples:
  tcgui-backend wait-for interface lab/eth0 --timeout 10s && tcgui-backend apply lab/eth0 --delay 20ms
  tcgui-backend wait-for clear lab/eth0
  tcgui-backend wait-for scenario lab/eth0 --timeout 10m

Exit status: 0 the condition holds, 3 no daemon answers, 6 timeout.";

pub(super) const BACKENDS_EXAMPLES: &str = "\
Examples:
  tcgui-backend backends
  tcgui-backend backends --json | jq -r '.backends[].name'";
