# Builds, tests, deploys and operates this project. `make` lists the targets.
#
# Needs Rust, Python 3.10, make and a C compiler. Targets install pinned versions of other tools into .tools/ when they
# first need them. A deployment to AWS uses the `aws` and `cargo lambda` of the machine, if it has them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# --- Settings, on the command line or in the environment --------------------------------------------------------------

FUNCTION ?= falcon-posture-sync
# The stacks are $(STACK)-state, $(STACK)-triggers and $(STACK)-console.
STACK ?= $(FUNCTION)
TABLE_PREFIX ?= $(FUNCTION)
SECRET_PREFIX ?= falcon-posture-sync
EVENT_BUS ?= default
SCHEDULE_MINUTES ?= 15
LOG_RETENTION_DAYS ?= 90
AUDIT_RETENTION_DAYS ?= 365
DELETION_PROTECTION ?= true
TAILSCALE_API_URL ?=
FALCON_CLOUDS_EXTRA ?=
# Dashboard: the threshold in the histogram of scores, and whether it has buttons to start a sync or a check.
CONSOLE_MIN_SCORE ?= 70
CONSOLE_BUTTONS ?= false
# 1 builds the function for a local AWS with the release profile, as for AWS. The default is the profile of the tests.
AS_DEPLOYED ?=
# Alarms: the SNS topic to notify (optional), and the minutes without a successful sync that raise an alarm.
ALARM_TOPIC_ARN ?=
NO_SUCCESS_MINUTES ?= $(shell echo $$(( $(SCHEDULE_MINUTES) > 30 ? 2 * $(SCHEDULE_MINUTES) : 60 )))

# A local AWS runs the function as a process of this machine. AWS offers arm64 and x86_64, and arm64 costs less.
HOST_ARCH := $(subst aarch64,arm64,$(shell uname -m))
ARCH ?= $(if $(AWS_ENDPOINT_URL),$(HOST_ARCH),arm64)

PYTHON ?= python3

# Arguments of the targets. They are passed through the environment and used exactly as given: make does not expand a
# `$` in them, and quotes are safe for the shell and for JSON.
ARGUMENTS := INTEGRATION CLOUD TAILNET ATTRIBUTE_KEY CONFIG SIDE CHANGES ACTOR KEEP_ATTRIBUTES FORCE DRY_RUN \
  ALLOW_MASS_REMOVAL DEVICE SINCE UNTIL LIMIT NEXT FORMAT MIN_SCORE POLICY KEEP DELETE_DATA CONFIRM
$(foreach name,$(ARGUMENTS),$(if $(filter undefined,$(origin $(name))),,\
  $(eval override $(name) := $$(value $(name)))$(eval export $(name))))

# Every switch accepts the same values: `1`, `true` and `yes` switch it on; `0`, `false`, `no` and nothing switch it off.
# Other values are an error that names the switch. $(call is-on,NAME) is 1 if it is on, and empty if it is off.
is-on = $(if $(filter-out 0 1,$(words $(value $(1)))),$(call invalid-switch,$(1)),$(strip $(if \
  $(filter 1 true yes,$(value $(1))),1,$(if $(filter-out 0 false no,$(value $(1))),$(call invalid-switch,$(1))))))
invalid-switch = $(error $(1): must be 1, true or yes, or 0, false, no or nothing; it is "$(value $(1))")
true-or-false = $(if $(call is-on,$(1)),true,false)

# REGION=eu-central-1 sets both variables of the SDKs: version 1 of the AWS CLI reads only AWS_DEFAULT_REGION.
REGION ?= $(or $(AWS_REGION),$(AWS_DEFAULT_REGION))
ifneq ($(REGION),)
export AWS_REGION := $(REGION)
export AWS_DEFAULT_REGION := $(REGION)
endif
# The AWS CLI must not open a pager during a deployment.
export AWS_PAGER :=

# cargo's build directory.
TARGET := $(or $(CARGO_TARGET_DIR),target)

# --- Tools ------------------------------------------------------------------------------------------------------------

TOOLS := .tools
VENV := $(TOOLS)/venv
CARGO_DENY := $(TOOLS)/cargo-deny-0.20.2

# The machine's own tools, or else the pinned ones. A local AWS always uses the pinned ones. make evaluates these when a
# recipe first uses them, which is after the tools were installed.
installed = $(if $(AWS_ENDPOINT_URL),,$(shell $(1) --version >/dev/null 2>&1 && echo "$(1)"))
AWS = $(eval AWS := $(or $(call installed,aws),$(VENV)/bin/aws))$(AWS)
CARGO_LAMBDA = $(eval CARGO_LAMBDA := $(or $(call installed,cargo lambda),$(VENV)/bin/cargo-lambda lambda))$(CARGO_LAMBDA)

# `cargo` links against the machine's C library, which may be newer than Lambda's, so it serves only for a local AWS.
COMPILER = $(if $(and $(AWS_ENDPOINT_URL),$(filter $(HOST_ARCH),$(ARCH))),cargo,cargo-zigbuild)

.PHONY: deploy-tools
deploy-tools:
	@if [ -n "$${AWS_ENDPOINT_URL:-}" ] || ! { aws --version && cargo lambda --version; } >/dev/null 2>&1; then \
	  $(MAKE) -s $(TOOLS)/deploy.stamp; fi

.PHONY: build-tools
build-tools: deploy-tools
	@if [ "$(COMPILER)" = cargo-zigbuild ] && ! zig version >/dev/null 2>&1; then $(MAKE) -s $(TOOLS)/cross.stamp; fi

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 10) and sys.exit("Python 3.10 or newer is required, found " \
	  + sys.version.split()[0] + ". Set PYTHON, for example PYTHON=python3.12.")'
	@$(PYTHON) -m venv $(VENV)

# Prints a line of progress. `make demo` silences it, because it shows the progress of the build at the same time.
progress = echo
pip-install = @$(progress) "installing $< into $(TOOLS)/" >&2 && \
  $(VENV)/bin/python -m pip install --quiet --no-deps --disable-pip-version-check -r $< && touch $@

$(TOOLS)/deploy.stamp: infra/requirements.txt | $(VENV)/bin/python
	$(pip-install)

$(TOOLS)/cross.stamp: infra/requirements-cross.txt | $(VENV)/bin/python
	$(pip-install)

$(TOOLS)/local.stamp: tests/local/requirements.txt $(TOOLS)/deploy.stamp | $(VENV)/bin/python
	$(pip-install)

$(TOOLS)/console.stamp: tests/console/requirements.txt | $(VENV)/bin/python
	$(pip-install)

# Compiled once, without optimisation, because it runs for two seconds only.
$(CARGO_DENY)/bin/cargo-deny:
	@$(progress) "installing cargo-deny into $(TOOLS)/" >&2
	@MAKEFLAGS= CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	cargo install --quiet --locked cargo-deny@$(patsubst $(TOOLS)/cargo-deny-%,%,$(CARGO_DENY)) --root $(CARGO_DENY)

# --- Try --------------------------------------------------------------------------------------------------------------
##@ Try

# Lists each target with its `##` text, under the `##@` headings.
.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@ / { printf "%s%s\n", separator, substr($$0, 5); separator = "\n" } \
	  /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 } \
	  END { print "\nBrackets mark what is optional. The comment above a target in the Makefile explains its variables." }' \
	  $(MAKEFILE_LIST)

# Deploys to a local AWS, with simulated Falcon and Tailscale, and checks each step that it prints.
#   KEEP=1         leaves everything running until Ctrl-C and prints commands to explore it
#   AS_DEPLOYED=1  builds the function as for AWS
.PHONY: demo
demo: ## Run everything on this machine, with simulated Falcon and Tailscale [KEEP=1]
	@: $(call is-on,KEEP) $(call is-on,AS_DEPLOYED)
	@echo "installing into $(TOOLS)/, building the function and the simulators (takes minutes the first time)"
	@$(MAKE) -s -j2 progress=: $(TOOLS)/local.stamp local-build
	@$(VENV)/bin/python tests/local/demo.py $(if $(call is-on,KEEP),--keep)

# --- Develop ----------------------------------------------------------------------------------------------------------
##@ Develop

# Changes no files.
.PHONY: check
check: ## Check format, lints, docs, dependencies and templates
	@$(MAKE) -s -j2 $(TOOLS)/local.stamp $(CARGO_DENY)/bin/cargo-deny
	cargo fmt --all --check
	CLIPPY_CONF_DIR="$(CURDIR)/infra" cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	$(CARGO_DENY)/bin/cargo-deny --locked --config infra/deny.toml check bans licenses sources
	$(VENV)/bin/cfn-lint infra/state.yaml infra/triggers.yaml infra/console.yaml
	$(VENV)/bin/ruff check --config tests/local/ruff.toml tests/local tests/console
	$(VENV)/bin/ruff format --config tests/local/ruff.toml --check tests/local tests/console

# Fetches the database from GitHub.
.PHONY: advisories
advisories: $(CARGO_DENY)/bin/cargo-deny ## Check the dependencies against RustSec's advisory database
	$(CARGO_DENY)/bin/cargo-deny --locked --config infra/deny.toml check advisories

# Tests mostly wait, so cargo runs two per core, and both kinds of tests run in parallel. The output of the tests on the
# local AWS is printed at the end. (MAKEFLAGS is emptied where cargo would read a job server from it.)
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

#   AS_DEPLOYED=1  builds the function for the tests on the local AWS as for AWS
.PHONY: test
test: ## Run all tests, including those on a local AWS [AS_DEPLOYED=1]
	@: $(call is-on,AS_DEPLOYED)
	@$(MAKE) -s -j2 $(TOOLS)/local.stamp test-build
	@$(if $(call is-on,AS_DEPLOYED),$(MAKE) build COMPILER=cargo)
	@$(MAKE) -j2 test-rust test-local

.PHONY: test-build test-rust test-local
test-build:
	@MAKEFLAGS= cargo test --locked --workspace --no-run
test-rust:
	@MAKEFLAGS= cargo test --locked --workspace
test-local: LOCAL_LOG := $(TARGET)/test-local.log
test-local: $(TOOLS)/local.stamp
	@$(VENV)/bin/python -m pytest -p no:cacheprovider tests/local >$(LOCAL_LOG) 2>&1 || failed=1; \
	cat $(LOCAL_LOG); [ -z "$${failed:-}" ]

.PHONY: console-pages
console-pages: $(TOOLS)/console.stamp
	cargo test --locked --workspace --test it console::pages

#   CHROMIUM  the browser, if it is not on the PATH
#   JAVA      the Java that runs the HTML validator, if it is not on the PATH
.PHONY: console
console: console-pages ## Test the dashboard's widgets in a browser and an HTML validator
	$(VENV)/bin/python -m pytest -q -p no:cacheprovider tests/console

# Writes them to infra/console/.
#   CHROMIUM  the browser, if it is not on the PATH
.PHONY: screenshots
screenshots: console-pages ## Update the documentation's pictures of the dashboard
	@$(VENV)/bin/python tests/console/screenshots.py

# Prints Markdown, and writes it to target/bench.md.
#   BENCH  arguments, for example BENCH='--quick', BENCH='--only 10k' or BENCH='--strict'
# The function is built alone, as for a deployment: cargo would otherwise enable the features that other crates ask for.
.PHONY: bench
bench: ## Measure what a sync costs at every size [BENCH=--quick]
	cargo build --locked --release --bin falcon-posture-sync
	cargo build --locked --profile bench --package posture-bench
	@$(TARGET)/release/posture-bench $(BENCH)

.PHONY: local-build
local-build:
	@MAKEFLAGS= $(PYTHON) tests/local/build.py

#   ARCH           arm64 or x86_64
#   AS_DEPLOYED=1  uses the release profile for a local AWS, instead of the binary that the tests use
.PHONY: build
build: build-tools ## Build the function for Lambda [ARCH=arm64]
ifeq ($(COMPILER)$(call is-on,AS_DEPLOYED),cargo)
	@$(MAKE) local-build
	@mkdir -p $(LAMBDA_DIR)/falcon-posture-sync
	@cp $(TARGET)/debug/falcon-posture-sync $(LAMBDA_DIR)/falcon-posture-sync/bootstrap
else
	@CARGO_ZIGBUILD_PYTHON_PATH="$$([ -e $(TOOLS)/cross.stamp ] && echo "$(CURDIR)/$(VENV)/bin/python" || echo $(PYTHON))" \
	$(CARGO_LAMBDA) build --locked --release --bin falcon-posture-sync --compiler $(COMPILER) \
	  $(if $(filter cargo,$(COMPILER)),,$(if $(filter arm64,$(ARCH)),--arm64,--x86-64))
endif

.PHONY: clean
clean: ## Remove build output and tools
	rm -rf target $(TOOLS)

# --- Deploy -----------------------------------------------------------------------------------------------------------
##@ Deploy

# The output directory of `cargo lambda build`, and a file with the function's environment.
LAMBDA_DIR := $(TARGET)/lambda
ENV_FILE := $(LAMBDA_DIR)/$(FUNCTION).env

STATE := $(STACK)-state
TRIGGERS := $(STACK)-triggers
CONSOLE := $(STACK)-console
deploy-stack = $(AWS) cloudformation deploy --capabilities CAPABILITY_IAM --no-fail-on-empty-changeset \
  --stack-name $(1) --template-file $(2) --parameter-overrides
# state-outputs lists the outputs of the state stack. $(call output,NAME) is one of them, from the shell's $outputs.
state-outputs = $(AWS) cloudformation describe-stacks --stack-name $(STATE) \
  --query 'Stacks[0].Outputs[].[OutputKey,OutputValue]' --output text
output = $$(awk '$$1 == "$(1)" { print $$2 }' <<<"$$outputs")

# Checks the switches before the build, which takes minutes.
.PHONY: deploy-switches
deploy-switches:
	@: $(call is-on,DELETION_PROTECTION) $(call is-on,CONSOLE_BUTTONS)

# Safe to repeat. The settings are listed at the top of this file.
.PHONY: deploy
deploy: deploy-switches build ## Create or update the function and its stacks in AWS
	@echo "==> tables, role, log group, dead-letter queue ($(STATE))"
	@$(call deploy-stack,$(STATE),infra/state.yaml) \
	  FunctionName=$(FUNCTION) TablePrefix=$(TABLE_PREFIX) SecretPrefix=$(SECRET_PREFIX) EventBusName=$(EVENT_BUS) \
	  LogRetentionDays=$(LOG_RETENTION_DAYS) DeletionProtection=$(call true-or-false,DELETION_PROTECTION)
	@echo "==> function ($(FUNCTION))"
	@outputs=$$($(state-outputs)); \
	printf '%s="%s"\n' > $(ENV_FILE) \
	  INTEGRATIONS_TABLE "$(call output,IntegrationsTableName)" \
	  NODES_TABLE "$(call output,NodesTableName)" \
	  AUDIT_TABLE "$(call output,AuditTableName)" \
	  EVENT_BUS_NAME "$(EVENT_BUS)" \
	  AUDIT_RETENTION_DAYS "$(AUDIT_RETENTION_DAYS)" \
	  SYNC_INTERVAL_MINUTES "$(SCHEDULE_MINUTES)" \
	  CONSOLE_BUTTONS "$(call true-or-false,CONSOLE_BUTTONS)" \
	  $(if $(TAILSCALE_API_URL),TAILSCALE_API_URL "$(TAILSCALE_API_URL)") \
	  $(if $(FALCON_CLOUDS_EXTRA),FALCON_CLOUDS_EXTRA "$(FALCON_CLOUDS_EXTRA)"); \
	for attempt in 1 2 3 4; do \
	  if log=$$($(CARGO_LAMBDA) deploy $(FUNCTION) --binary-name falcon-posture-sync --lambda-dir $(LAMBDA_DIR) \
	    --role "$(call output,FunctionRoleArn)" --env-file $(ENV_FILE) 2>&1); then break; fi; \
	  : "Lambda can assume a new role only after some seconds"; \
	  if [ $$attempt = 4 ] || ! grep -q 'cannot be assumed' <<<"$$log"; then printf '%s\n' "$$log" >&2; exit 1; fi; \
	  sleep 5; \
	done
	@: "Makes Lambda itself log as JSON; cargo-lambda has no setting for that"; \
	$(AWS) lambda wait function-updated --function-name $(FUNCTION); \
	if [ "$$($(AWS) lambda get-function-configuration --function-name $(FUNCTION) \
	    --query LoggingConfig.LogFormat --output text)" != JSON ]; then \
	  $(AWS) lambda update-function-configuration --function-name $(FUNCTION) --logging-config LogFormat=JSON >/dev/null; \
	  $(AWS) lambda wait function-updated --function-name $(FUNCTION); \
	fi
	@echo "==> schedule, rules, retries ($(TRIGGERS))"
	@$(call deploy-stack,$(TRIGGERS),infra/triggers.yaml) \
	  FunctionName=$(FUNCTION) StateStack=$(STATE) EventBusName=$(EVENT_BUS) SecretPrefix=$(SECRET_PREFIX) \
	  ScheduleMinutes=$(SCHEDULE_MINUTES)
	@echo "==> dashboard, alarms ($(CONSOLE))"
	@$(call deploy-stack,$(CONSOLE),infra/console.yaml) \
	  FunctionName=$(FUNCTION) StateStack=$(STATE) AlarmTopicArn=$(ALARM_TOPIC_ARN) MinScore=$(CONSOLE_MIN_SCORE) \
	  NoSuccessSeconds=$$(( $(NO_SUCCESS_MINUTES) * 60 )) SilentHours=$$(( (2 * $(SCHEDULE_MINUTES) + 59) / 60 ))
	@printf '%s\n' "$$NEXT_STEPS"

define NEXT_STEPS

Deployed. The function syncs all connected integrations every $(SCHEDULE_MINUTES) min. To connect one, for example corp:

1. Store the credentials of its two API clients. Each command asks for one
   (Falcon: Hosts Read, Zero Trust Assessment Read; Tailscale: devices:core:read, devices:posture_attributes):
     make secret INTEGRATION=corp SIDE=falcon
     make secret INTEGRATION=corp SIDE=tailscale
2. Connect it. This checks the credentials and starts the first sync; `make check-connection` repeats the checks:
     make connect INTEGRATION=corp CLOUD=us-2
3. Look at the result:
     make status
4. In the tailnet policy file, add a posture to "postures", and name it in "srcPosture" of each rule that needs it:
     "posture:trusted": ["custom:ztaScore >= 70"]
endef
export NEXT_STEPS

# Keeps the stack $(STATE): tables, role, log group and dead-letter queue.
#   DELETE_DATA=1  also deletes that stack and the tables, including the audit trail
#   CONFIRM        the value of STACK; required with DELETE_DATA=1
.PHONY: destroy
destroy: deploy-tools ## Delete the deployment but keep its data [DELETE_DATA=1 CONFIRM=<stack>]
	$(if $(call is-on,DELETE_DATA),$(if $(filter-out 1,$(words $(CONFIRM)))$(filter-out $(STACK),$(CONFIRM)),$(error \
	  CONFIRM: must be $(STACK), the name of the stack whose tables and audit trail DELETE_DATA=1 deletes permanently)))
	@echo "==> dashboard, alarms ($(CONSOLE))"
	@$(AWS) cloudformation delete-stack --stack-name $(CONSOLE)
	@$(AWS) cloudformation wait stack-delete-complete --stack-name $(CONSOLE)
	@echo "==> schedule, rules, retries ($(TRIGGERS))"
	@$(AWS) cloudformation delete-stack --stack-name $(TRIGGERS)
	@$(AWS) cloudformation wait stack-delete-complete --stack-name $(TRIGGERS)
	@echo "==> function ($(FUNCTION))"
	@if ! log=$$($(AWS) lambda delete-function --function-name $(FUNCTION) 2>&1) && ! grep -q ResourceNotFound <<<"$$log"; then \
	  printf '%s\n' "$$log" >&2; exit 1; fi
	@$(if $(call is-on,DELETE_DATA),$(delete-data),$(keep-data))

# Deleting the stack keeps its tables, and DynamoDB protects them: remove the protection and delete each by name.
define delete-data
echo "==> tables, role, log group, dead-letter queue ($(STATE))"; \
outputs=$$($(state-outputs)); \
$(AWS) cloudformation delete-stack --stack-name $(STATE); \
$(AWS) cloudformation wait stack-delete-complete --stack-name $(STATE); \
for table in $(call output,IntegrationsTableName) $(call output,NodesTableName) $(call output,AuditTableName); do \
  $(AWS) dynamodb update-table --table-name $$table --no-deletion-protection-enabled >/dev/null; \
  $(AWS) dynamodb wait table-exists --table-name $$table; \
  $(AWS) dynamodb delete-table --table-name $$table >/dev/null; \
  echo "deleted $$table"; \
done; \
echo "Kept: the secrets under $(SECRET_PREFIX)/. Delete them in Secrets Manager if nothing else uses them."
endef

define keep-data
echo "Kept: the stack $(STATE) (tables, role, log group, dead-letter queue); \`make deploy\` uses it again."; \
echo "To delete it and all its data, run: make destroy DELETE_DATA=1 CONFIRM=$(STACK)"
endef

# --- Operate ----------------------------------------------------------------------------------------------------------
##@ Operate

# Invokes the function and prints its response, which is JSON. An error of the function is printed to standard error and
# fails; `sed` drops cargo-lambda's request to report the error to cargo-lambda.
define-invoke = invoke() { $(CARGO_LAMBDA) invoke $(FUNCTION) --remote --output-format json "$$@" \
  2> >(sed '/Was this behavior unexpected/,$$d' >&2); }
invoke = $(define-invoke); invoke

# Invokes the function with a command and its fields, in the syntax of PAYLOAD.
send = $(define-invoke); \
  send() { local payload; payload=$$($(PYTHON) -c "$$PAYLOAD" "$$@") && invoke --data-ascii "$$payload"; }; send

# Builds a payload. `name=VARIABLE` is a string from the environment, `name:VARIABLE` is JSON from the environment, and
# `name?` is true. An unset variable omits the field. `a.b` is the field `b` of the object `a`.
define PAYLOAD
import json, os, re, sys
payload = {"command": sys.argv[1]}
for field in sys.argv[2:]:
    path, kind, variable = re.split("([=:?])", field)
    if value := kind == "?" or os.environ.get(variable):
        *parents, name = path.split(".")
        target = payload
        for parent in parents:
            target = target.setdefault(parent, {})
        try:
            target[name] = json.loads(value) if kind == ":" else value
        except ValueError as error:
            sys.exit(f"{variable}: must be JSON: {error}")
print(json.dumps(payload))
endef
export PAYLOAD

# $(call flag,name,SWITCH) is a field that is true if the switch is on, and empty if it is off.
flag = $(if $(call is-on,$(2)),$(1)?)

# Sets ACTOR, which the audit record names. The default is the identity of the AWS credentials in use.
as-actor = ACTOR=$${ACTOR:-$$($(AWS) sts get-caller-identity --query Arn --output text)}; export ACTOR

# $(call require,NAME,EXAMPLE) fails unless the variable is set.
require = $(if $($(1)),,$(error $(1) is required, for example $(1)=$(2)))

# Asks for the credential, and stores it as a new secret or as a new version of an existing one.
#   INTEGRATION  the integration's name
#   SIDE         falcon or tailscale
.PHONY: secret
secret: deploy-tools ## Store an API client's credential: INTEGRATION=corp SIDE=falcon
	$(call require,INTEGRATION,corp)
	$(if $(filter "falcon" "tailscale","$(SIDE)"),,$(error SIDE: must be falcon or tailscale, for example SIDE=falcon))
	@credential=$$($(PYTHON) -c "$$CREDENTIAL"); \
	: "A pipe keeps the credential out of the arguments and the environment of the AWS CLI"; \
	store() { printf '%s' "$$credential" | $(AWS) secretsmanager "$$@" --secret-string file:///dev/stdin 2>&1; }; \
	name="$(SECRET_PREFIX)/$$INTEGRATION/$$SIDE"; \
	if log=$$(store put-secret-value --secret-id "$$name"); then \
	  echo "Stored a new version of the secret $$name. Connected integrations that use it sync at once."; \
	elif grep -q ResourceNotFoundException <<<"$$log" && log=$$(store create-secret --name "$$name"); then \
	  echo "Created the secret $$name."; \
	else \
	  printf '%s\n' "$$log" >&2; exit 1; \
	fi

# Reads a credential and prints it as the secret's JSON. Prompts on a terminal; otherwise reads one answer per line.
define CREDENTIAL
import getpass, json, os, re, sys

def ask(prompt, hidden=False):
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    if hidden:
        return getpass.getpass(f"{prompt} (not shown): ")
    print(f"{prompt}: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()

if not re.fullmatch("[a-z0-9][a-z0-9-]{0,63}", os.environ["INTEGRATION"]):
    sys.exit("INTEGRATION: must be 1 to 64 lower-case letters, digits or hyphens, without a leading hyphen")
try:
    if os.environ["SIDE"] == "falcon":
        answers = {"clientId": ask("Client id"), "clientSecret": ask("Client secret", True)}
        optional = {"memberCid": ask("CID of the child account, for Flight Control only (or leave empty)")}
    else:
        answers, optional = {"clientId": ask("OAuth client id (leave empty to enter an API access token)")}, {}
        if answers["clientId"]:
            answers["clientSecret"] = ask("Client secret", True)
        else:
            answers = {"apiKey": ask("API access token", True)}
except KeyboardInterrupt:
    sys.exit("\nNothing was stored.")
if missing := [name for name, answer in answers.items() if not answer.strip()]:
    sys.exit(f"Nothing was stored: {' and '.join(missing)} must not be empty.")
print(json.dumps(answers | {name: answer for name, answer in optional.items() if answer.strip()}))
endef
export CREDENTIAL

# Checks everything that the integration needs, and stores it only if all of that works. The first sync then follows.
#   INTEGRATION    a name of your choice
#   CLOUD          Falcon's cloud, such as us-1, us-2 or eu-1
#   TAILNET        the tailnet's id or name (default: the credential's tailnet)
#   ATTRIBUTE_KEY  the attribute to write (default: custom:ztaScore)
#   CONFIG         a file like events/connect.json, for other settings; replaces the variables above
.PHONY: connect
connect: deploy-tools ## Connect a Falcon account to a tailnet: INTEGRATION=corp CLOUD=us-2
ifdef CONFIG
	@$(invoke) --data-file "$$CONFIG"
else
	$(if $(and $(INTEGRATION),$(CLOUD)),,$(error INTEGRATION and CLOUD are required, for example INTEGRATION=corp \
	  CLOUD=us-2; or set CONFIG to a file like events/connect.json))
	@$(as-actor); export PROVIDER=falcon \
	  FALCON_SECRET="$(SECRET_PREFIX)/$$INTEGRATION/falcon" TAILSCALE_SECRET="$(SECRET_PREFIX)/$$INTEGRATION/tailscale"; \
	$(send) connect actor=ACTOR integration.id=INTEGRATION integration.provider=PROVIDER integration.cloudId=CLOUD \
	  integration.falconSecret=FALCON_SECRET integration.tailnet=TAILNET integration.tailscaleSecret=TAILSCALE_SECRET \
	  integration.attributeKey=ATTRIBUTE_KEY
endif

# Repeats the checks of `make connect` and prints a remedy for each that fails. Exits with an error if one fails.
.PHONY: check-connection
check-connection: deploy-tools ## Check that an integration can work; writes nothing: INTEGRATION=corp
	$(call require,INTEGRATION,corp)
	@answer=$$($(send) check integration=INTEGRATION); \
	printf '%s\n' "$$answer"; \
	grep -Eq '"ok": ?true' <<<"$$answer"

# A sync with the new settings follows.
#   CHANGES  a JSON object of settings; null resets a setting to its default
.PHONY: update
update: deploy-tools ## Change settings: INTEGRATION=corp CHANGES='{"maxHostAgeDays":14}'
	$(call require,INTEGRATION,corp)
	$(call require,CHANGES,'{"maxHostAgeDays":14}'. A null resets a setting to its default)
	@$(as-actor); $(send) update integration=INTEGRATION changes:CHANGES actor=ACTOR

# Deletes the integration, its node records and the attributes that it wrote. Its audit records stay.
#   KEEP_ATTRIBUTES=1  leaves the attributes on the devices
.PHONY: remove
remove: deploy-tools ## Remove an integration and its attributes: INTEGRATION=corp [KEEP_ATTRIBUTES=1]
	$(call require,INTEGRATION,corp)
	@$(as-actor); export ATTRIBUTES=$(if $(call is-on,KEEP_ATTRIBUTES),keep,delete); \
	answer=$$($(send) remove integration=INTEGRATION attributes=ATTRIBUTES actor=ACTOR); \
	printf '%s\n' "$$answer"; \
	grep -Eq '"removed": ?true' <<<"$$answer"

#   INTEGRATION            only this integration (default: all)
#   FORCE=1                ends a pause, and syncs a disabled integration
#   DRY_RUN=1              prints the plan and writes nothing
#   ALLOW_MASS_REMOVAL=12 lets pass the 12 held removals that are absent longest
.PHONY: sync
sync: deploy-tools ## Sync now [INTEGRATION=corp FORCE=1 DRY_RUN=1 ALLOW_MASS_REMOVAL=12]
	@answer=$$($(send) sync integration=INTEGRATION $(call flag,force,FORCE) $(call flag,dryRun,DRY_RUN) \
	  allowMassRemoval:ALLOW_MASS_REMOVAL); \
	printf '%s\n' "$$answer"; \
	: "A rejection by Falcon or Tailscale is a response of the function, but fails this target"; \
	! grep -Eq '"outcome": ?"(failed|paused)"' <<<"$$answer"

#   INTEGRATION  only this integration (default: all)
#   FORMAT=json  prints JSON
.PHONY: status
status: deploy-tools ## Show the state of the integrations and their latest syncs [INTEGRATION=corp]
	@$(show); $(send) status integration=INTEGRATION format=FORMAT | show

#   DEVICE       a node id, a name with or without the tailnet's domain, or a serial number
#   FORMAT=json  prints JSON
.PHONY: explain
explain: deploy-tools ## Explain why a device has its score, or none: INTEGRATION=corp DEVICE=bob-pc
	$(call require,INTEGRATION,corp)
	$(call require,DEVICE,bob-pc. Use a node id or name or serial number)
	@$(show); $(send) explain integration=INTEGRATION device=DEVICE format=FORMAT | show

#   MIN_SCORE    previews a posture that requires at least this score
#   POLICY=1     previews the postures of the tailnet policy file that use the attribute
#   FORMAT=json  prints JSON
.PHONY: preview
preview: deploy-tools ## List who would lose access: INTEGRATION=corp MIN_SCORE=70, or POLICY=1
	$(call require,INTEGRATION,corp)
	$(if $(MIN_SCORE)$(call is-on,POLICY),,$(error MIN_SCORE or POLICY is required, for example \
	  MIN_SCORE=70. POLICY=1 previews the postures of the tailnet policy file))
	@$(show); answer=$$($(send) preview integration=INTEGRATION minScore:MIN_SCORE $(call flag,policy,POLICY) format=FORMAT); \
	show <<<"$$answer"; \
	: "Fails if the response says why there is no preview"; \
	! grep -Eq '"error": ?"|^"No data: ' <<<"$$answer"

# Asks for text unless FORMAT is set, and prints a response: text comes as a JSON string and is decoded, the rest is
# printed unchanged.
show = export FORMAT="$${FORMAT:-text}"; show() { $(PYTHON) -c "$$SHOW"; }

define SHOW
import json, sys
response = sys.stdin.read()
text = json.loads(response)
print(text if isinstance(text, str) else response, end="")
endef
export SHOW

audit-filter = $(if $(INTEGRATION)$(DEVICE),,$(error INTEGRATION or DEVICE is required, for example INTEGRATION=corp. \
  DEVICE alone must be a node id)) \
  audit integration=INTEGRATION device=DEVICE since=SINCE until=UNTIL

# Takes INTEGRATION, DEVICE or both.
#   DEVICE       a node id; with INTEGRATION also a name or serial number
#   SINCE,UNTIL  a date or an RFC 3339 time; UNTIL is exclusive
#   LIMIT        the number of records
#   NEXT         continues where an answer with this `next` ended
.PHONY: audit
audit: deploy-tools ## List changes, newest first: INTEGRATION=corp [DEVICE=bob-pc SINCE=2026-11-01]
	@$(send) $(audit-filter) limit:LIMIT next=NEXT

# Records per call. 1000 is the function's maximum.
EXPORT_PAGE ?= 1000

# Takes the variables of `make audit` except LIMIT and NEXT. Prints the format of Tailscale's configuration audit log.
.PHONY: audit-export
audit-export: deploy-tools ## Print all changes as JSON lines: INTEGRATION=corp [SINCE=2026-11-01]
	@export FORMAT=tailscale PAGE=$(EXPORT_PAGE) NEXT=; \
	while answer=$$($(send) $(audit-filter) limit:PAGE next=NEXT format=FORMAT) || exit; do \
	  { read -r NEXT; cat; } < <($(PYTHON) -c "$$EXPORT_LINES" <<<"$$answer"); \
	  [ -n "$$NEXT" ] || break; \
	done

# Prints the `next` of a response of `audit`, then one record per line.
define EXPORT_LINES
import json, sys
answer = json.load(sys.stdin)
print(answer.get("next") or "", *map(json.dumps, answer["records"]), sep="\n")
endef
export EXPORT_LINES

MINUTES ?= 60

.PHONY: logs
logs: deploy-tools ## Print the function's log of the last hour [MINUTES=60]
	@$(AWS) logs filter-log-events --log-group-name /aws/lambda/$(FUNCTION) \
	  --start-time $$(( ($$(date +%s) - $(MINUTES) * 60) * 1000 )) --query 'events[].[message]' --output text
