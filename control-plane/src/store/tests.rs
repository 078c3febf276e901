use std::path::Path;

use sqlx::{ConnectOptions, Connection, SqliteConnection};

use trunkline_sip::offer_answer::SrtpPolicy;

use super::*;
use crate::cdr::tests::{record, recording};
use crate::cdr::{CallDirection, CallRecord};
use crate::site::tests::{SMALL_SITE, site, with_media};
use crate::site::{E164, Name};
use crate::trunk::policy::Dialled;

struct Fixture {
    dir: tempfile::TempDir,
    store: StoreHandle,
    runtime: tokio::runtime::Runtime,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = open_at(dir.path()).expect("opened");
        Self {
            dir,
            store,
            runtime: runtime(),
        }
    }

    fn apply(&self, text: &str, options: ApplyOptions) -> Result<Plan, StoreError> {
        self.runtime.block_on(self.store.apply(site(text), options))
    }

    fn applied(&self, text: &str) -> Plan {
        self.apply(text, ApplyOptions::default()).expect("applied")
    }

    fn members(&self) -> Vec<MemberRow> {
        self.runtime.block_on(self.store.members()).expect("listed")
    }

    fn choose(&self, extension: &str, availability: Availability) {
        let extension = extension.parse().expect("extension");
        self.runtime
            .block_on(self.store.set_availability(None, extension, availability))
            .expect("set");
    }

    /// What somebody else writes into the file, behind the store's back.
    fn sql(&self, statement: &'static str) {
        let path = self.dir.path().join("trunkline.db");
        self.runtime.block_on(async {
            let mut connection = connect(&path).await;
            sqlx::raw_sql(statement)
                .execute(&mut connection)
                .await
                .expect("executed");
            connection.close().await.expect("closed");
        });
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

fn open_at(dir: &Path) -> Result<StoreHandle, StoreError> {
    let mut options = StoreOptions::new(dir.join("trunkline.db"), "trunkline");
    options.busy_timeout = Duration::from_millis(50);
    open(options).map(|(store, _)| store)
}

async fn connect(path: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .expect("connected")
}

/// Another process's write lock.
pub(crate) struct Lock {
    connection: SqliteConnection,
    runtime: tokio::runtime::Runtime,
}

impl Lock {
    pub(crate) fn take(path: &Path) -> Self {
        let runtime = runtime();
        let connection = runtime.block_on(async {
            let mut connection = connect(path).await;
            sqlx::raw_sql("BEGIN IMMEDIATE")
                .execute(&mut connection)
                .await
                .expect("locked");
            connection
        });
        Self {
            connection,
            runtime,
        }
    }

    pub(crate) fn release(self) {
        self.runtime
            .block_on(self.connection.close())
            .expect("closed");
    }
}

const DRY_RUN: ApplyOptions = ApplyOptions {
    dry_run: true,
    prune: false,
};

const PRUNE: ApplyOptions = ApplyOptions {
    dry_run: false,
    prune: true,
};

#[test]
fn second_apply_of_the_same_file_changes_nothing() {
    let fixture = Fixture::new();
    assert_eq!(fixture.applied(SMALL_SITE).changes.len(), 5);
    let again = fixture.applied(SMALL_SITE);
    assert_eq!((again.changes.len(), again.unchanged_count), (0, 5));
}

#[test]
fn dry_run_shows_the_plan_and_changes_nothing() {
    let fixture = Fixture::new();
    let plan = fixture.apply(SMALL_SITE, DRY_RUN).expect("planned");
    assert_eq!(plan.changes.len(), 5);
    assert!(fixture.members().is_empty());
    assert_eq!(fixture.store.routing().borrow().counts(), (0, 0, 0));
    assert_eq!(fixture.applied(SMALL_SITE), plan);
}

#[test]
fn diff_is_readable_and_shows_no_secret() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    let changed = SMALL_SITE
        .replace("192.0.2.0/28", "192.0.2.0/24")
        .replace("password_file = \"ada\"", "password_file = \"new\"")
        .replace("forward_number = \"+442071838751\"\n", "");
    let shown = fixture
        .apply(&changed, DRY_RUN)
        .expect("planned")
        .to_string();
    assert_eq!(
        shown,
        "~ trunk carrier-1 sources: 192.0.2.0/28 2001:db8::/64 -> 192.0.2.0/24 2001:db8::/64\n\
         ~ member acme/101 password_file: (secret) -> (secret)\n\
         ~ member acme/102 forward_number: +442071838751 -> (none)\n\
         0 to create, 3 to change, 0 to delete, 2 unchanged, 0 kept"
    );
}

#[test]
fn what_an_apply_made_goes_when_the_file_no_longer_states_it() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    let plan = fixture.applied("[[tenant]]\nname = \"acme\"\n");
    assert_eq!(
        plan.changes
            .iter()
            .filter(|c| c.action == Action::Delete)
            .count(),
        4
    );
    assert!(fixture.members().is_empty());
    assert_eq!(fixture.store.routing().borrow().counts(), (0, 0, 0));
}

#[test]
fn what_others_made_stays_with_all_it_needs_until_pruned() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    fixture.sql(
        "INSERT INTO dids (number, tenant_id, member_id, origin) VALUES ('+15550100200', \
         (SELECT id FROM tenants), (SELECT id FROM members WHERE extension = '102'), 'operator')",
    );
    let plan = fixture.applied("");
    let kept: Vec<_> = plan.kept.iter().map(|kept| kept.key.as_str()).collect();
    assert_eq!(kept, ["acme", "acme/102", "+15550100200"]);
    assert!(
        plan.to_string()
            .contains("= member acme/102 (did +15550100200 needs it)"),
        "{plan}"
    );
    assert_eq!(fixture.members().len(), 1);

    let plan = fixture.apply("", PRUNE).expect("pruned");
    assert_eq!((plan.changes.len(), plan.kept.len()), (3, 0));
    assert!(fixture.members().is_empty());
}

#[test]
fn object_that_others_made_is_changed_but_stays_theirs() {
    let fixture = Fixture::new();
    fixture.sql("INSERT INTO tenants (name, origin) VALUES ('acme', 'operator')");
    fixture.applied(SMALL_SITE);
    let plan = fixture.applied("");
    assert_eq!(plan.kept.len(), 1);
    assert_eq!(plan.kept[0].key, "acme");
}

#[test]
fn claim_on_what_must_be_kept_is_a_conflict_and_changes_nothing() {
    let fixture = Fixture::new();
    fixture.sql(
        "INSERT INTO tenants (name, origin) VALUES ('other', 'operator'); \
         INSERT INTO members (tenant_id, extension, name, sip_user, realm, ha1_md5, ha1_sha256, \
         availability, availability_set_by, origin) \
         VALUES (1, '900', 'X', 'ada', 'r', hex(zeroblob(16)), hex(zeroblob(32)), 'online', 'site', 'operator')",
    );
    let error = fixture
        .apply(SMALL_SITE, ApplyOptions::default())
        .expect_err("conflict");
    assert_eq!(
        error.to_string(),
        "member acme/101: sip_user ada belongs to member other/900, which this file does not \
         state; change it or delete that with --prune"
    );
    assert_eq!(fixture.members().len(), 1);
    assert!(fixture.apply(SMALL_SITE, PRUNE).is_ok());
}

#[test]
fn availability_that_the_member_chose_survives_every_apply() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    fixture.choose("101", Availability::Busy);
    assert_eq!(fixture.applied(SMALL_SITE).changes.len(), 0);

    // Stated otherwise, and changed in other ways at the same time.
    let changed = SMALL_SITE.replace(
        "name = \"Ada Lovelace\"",
        "name = \"Ada\"\navailability = \"offline\"",
    );
    let plan = fixture.applied(&changed);
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(plan.changes[0].fields.len(), 1, "{plan}");
    let ada = &fixture.members()[0];
    assert_eq!(
        (ada.name.as_str(), ada.availability.as_str()),
        ("Ada", "busy")
    );
    assert_eq!(ada.availability_set_by, "member");
}

#[test]
fn availability_that_nobody_chose_follows_the_file() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    fixture.applied(&SMALL_SITE.replace("\"offline\"", "\"busy\""));
    assert_eq!(fixture.members()[1].availability, "busy");
}

#[test]
fn sip_users_may_change_hands_within_one_apply() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    let swapped = SMALL_SITE
        .replace("sip_user = \"ada\"", "sip_user = \"x\"")
        .replace("sip_user = \"grace\"", "sip_user = \"ada\"")
        .replace("sip_user = \"x\"", "sip_user = \"grace\"");
    fixture.applied(&swapped);
    let users: Vec<_> = fixture.members().into_iter().map(|m| m.sip_user).collect();
    assert_eq!(users, ["grace", "ada"]);

    let moved = SMALL_SITE
        .replace("extension = \"101\"", "extension = \"103\"")
        .replace("member = \"101\"", "member = \"103\"");
    fixture.applied(&moved);
    let extensions: Vec<_> = fixture.members().into_iter().map(|m| m.extension).collect();
    assert_eq!(extensions, ["102", "103"]);
}

#[test]
fn extension_in_two_tenants_needs_the_tenant_named() {
    let fixture = Fixture::new();
    let text = format!(
        "{SMALL_SITE}\n[[tenant]]\nname = \"b\"\n[[member]]\ntenant = \"b\"\nextension = \"101\"\n\
         name = \"B\"\nsip_user = \"b\"\npassword_file = \"b\"\n"
    );
    fixture.applied(&text);
    let set = |tenant: Option<&str>, extension: &str| {
        fixture.runtime.block_on(fixture.store.set_availability(
            tenant.map(|t| t.parse().expect("name")),
            extension.parse().expect("extension"),
            Availability::Busy,
        ))
    };
    assert_eq!(
        set(None, "101"),
        Err(StoreError::AmbiguousMember {
            extension: "101".to_owned(),
            tenants: "acme, b".to_owned()
        })
    );
    assert_eq!(set(Some("b"), "101"), Ok("b".to_owned()));
    assert_eq!(
        set(None, "999"),
        Err(StoreError::NoSuchMember("999".to_owned()))
    );
    assert_eq!(fixture.members()[0].availability, "online");
}

#[test]
fn routing_follows_every_change() {
    let fixture = Fixture::new();
    let mut routing = fixture.store.routing();
    fixture.applied(SMALL_SITE);
    assert!(routing.has_changed().expect("open"));
    {
        let snapshot = routing.borrow_and_update();
        assert_eq!(snapshot.counts(), (1, 2, 1));
        let did = snapshot
            .did(&"+442071838750".parse().expect("number"))
            .expect("known");
        assert_eq!(did.member.sip_user.as_str(), "ada");
        assert_eq!(did.member.availability, Availability::Online);
        assert_eq!(snapshot.members_outside_realm("trunkline"), 0);
        assert_eq!(snapshot.members_outside_realm("elsewhere"), 2);
    }
    fixture.choose("101", Availability::Busy);
    let snapshot = routing.borrow_and_update();
    let ada = snapshot.member_by_sip_user("ada").expect("known");
    assert_eq!(ada.availability, Availability::Busy);
    assert!(snapshot.member_by_sip_user("ADA").is_none());
}

#[test]
fn trunk_is_found_by_its_longest_source() {
    let text = "[[tenant]]\nname = \"a\"\n\
                [[trunk]]\nname = \"wide\"\ntenant = \"a\"\nsources = [\"192.0.2.0/24\", \"::/0\"]\n\
                [[trunk]]\nname = \"narrow\"\ntenant = \"a\"\nsources = [\"192.0.2.16/28\"]\n\
                [[trunk]]\nname = \"host\"\ntenant = \"a\"\nsources = [\"192.0.2.17\"]\n";
    let fixture = Fixture::new();
    fixture.applied(text);
    let routing = fixture.store.routing();
    let snapshot = routing.borrow();
    let name = |source: &str| {
        let source = source.parse().expect("address");
        snapshot
            .trunk_for(source)
            .map(|trunk| trunk.name.to_string())
    };
    for (source, trunk) in [
        ("192.0.2.1", Some("wide")),
        ("192.0.2.18", Some("narrow")),
        ("192.0.2.17", Some("host")),
        ("::ffff:192.0.2.17", Some("host")),
        ("2001:db8::1", Some("wide")),
        ("192.0.3.1", None),
    ] {
        assert_eq!(name(source).as_deref(), trunk, "{source}");
    }
}

#[test]
fn reload_shows_what_another_process_changed() {
    let fixture = Fixture::new();
    let other = open_at(fixture.dir.path()).expect("opened twice");
    fixture
        .runtime
        .block_on(other.apply(site(SMALL_SITE), ApplyOptions::default()))
        .expect("applied");
    assert_eq!(fixture.store.routing().borrow().counts(), (0, 0, 0));
    fixture
        .runtime
        .block_on(fixture.store.reload())
        .expect("reloaded");
    assert_eq!(fixture.store.routing().borrow().counts(), (1, 2, 1));
}

const PIN_SITE: &str = "[[tenant]]\nname = \"acme\"\n\n[[conference]]\nname = \"board\"\n\
     tenant = \"acme\"\ndid = \"+442071838760\"\npin = \"271828\"\n";

impl Fixture {
    fn pin(&self) -> crate::pin::PinHash {
        let did = "+442071838760".parse().expect("a number");
        let routing = self.store.routing();
        let snapshot = routing.borrow();
        let conference = snapshot.conference(&did).expect("a conference");
        conference.pin.clone().expect("a PIN")
    }

    /// Whether the store's files hold these bytes anywhere.
    fn holds(&self, text: &str) -> bool {
        ["trunkline.db", "trunkline.db-wal"].iter().any(|name| {
            let file = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
            file.windows(text.len()).any(|part| part == text.as_bytes())
        })
    }
}

#[test]
fn pin_is_stored_hashed_and_the_same_one_is_no_change() {
    let fixture = Fixture::new();
    fixture.applied(PIN_SITE);
    assert!(fixture.pin().is_of(&crate::call::Pin("271828".to_owned())));
    assert!(!fixture.holds("271828"));
    assert_eq!(fixture.applied(PIN_SITE).changes, []);
    let plan = fixture.applied(&PIN_SITE.replace("271828", "314159"));
    let [change] = &plan.changes[..] else {
        panic!("{plan:?}");
    };
    let secret = Some("(secret)".to_owned());
    assert_eq!(
        (&change.fields[0].from, &change.fields[0].to),
        (&secret, &secret)
    );
    assert!(fixture.pin().is_of(&crate::call::Pin("314159".to_owned())));
}

#[test]
fn pin_that_an_earlier_release_left_in_clear_is_hashed_at_the_next_start() {
    let fixture = Fixture::new();
    fixture.applied(PIN_SITE);
    fixture.sql("UPDATE conferences SET pin = '161803'");
    let again = open_at(fixture.dir.path()).expect("opened");
    fixture.runtime.block_on(again.reload()).expect("reloaded");
    let fixture = Fixture {
        store: again,
        ..fixture
    };
    assert!(fixture.pin().is_of(&crate::call::Pin("161803".to_owned())));
    assert_eq!(
        fixture
            .applied(&PIN_SITE.replace("271828", "161803"))
            .changes,
        []
    );
}

#[test]
fn call_record_is_kept_once_and_read_back_whole() {
    let fixture = Fixture::new();
    let add = |records: [DetailRecord; 2]| {
        let mut pending = fixture
            .store
            .try_add_records(records.into())
            .expect("taken");
        loop {
            if let Some(result) = pending.poll() {
                break result;
            }
            std::thread::yield_now();
        }
    };
    assert_eq!(
        add([record("a", 1_000), record("b", 2_000)].map(Into::into)),
        Ok(2)
    );
    assert_eq!(
        add([record("b", 2_000), record("c", 3_000)].map(Into::into)),
        Ok(1)
    );
    let recordings = [recording("1-1", "b", 2_500), recording("1-2", "b", 2_600)];
    assert_eq!(add(recordings.clone().map(Into::into)), Ok(2));
    assert_eq!(add(recordings.clone().map(Into::into)), Ok(0));
    let list = |limit, since_unix_ms| {
        let query = RecordQuery {
            limit,
            since_unix_ms,
        };
        fixture
            .runtime
            .block_on(fixture.store.records(query))
            .expect("listed")
    };
    let stored = |record, recordings: &[RecordingRecord]| StoredCall {
        record,
        recordings: recordings.to_vec(),
    };
    let [a, b, c] = [
        stored(record("a", 1_000), &[]),
        stored(record("b", 2_000), &recordings),
        stored(record("c", 3_000), &[]),
    ];
    assert_eq!(list(10, None), [c.clone(), b, a]);
    assert_eq!(list(10, Some(2_000)).len(), 2);
    assert_eq!(list(1, None), [c]);
    let query = RecordQuery {
        limit: 1,
        since_unix_ms: None,
    };
    let newest = fixture.runtime.block_on(fixture.store.recordings(query));
    assert_eq!(newest, Ok(vec![recordings[1].clone()]));
}

#[test]
fn lock_of_another_process_is_named_and_passes() {
    let fixture = Fixture::new();
    let path = fixture.dir.path().join("trunkline.db");
    let lock = Lock::take(&path);
    assert_eq!(
        fixture.apply(SMALL_SITE, ApplyOptions::default()),
        Err(StoreError::Busy)
    );
    // Reading goes on.
    assert!(fixture.members().is_empty());
    assert!(fixture.apply(SMALL_SITE, DRY_RUN).is_ok());
    lock.release();
    assert_eq!(fixture.applied(SMALL_SITE).changes.len(), 5);
}

#[test]
fn store_opens_and_reads_while_another_process_writes() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    let lock = Lock::take(&fixture.dir.path().join("trunkline.db"));
    let second = open_at(fixture.dir.path()).expect("opened beside a writer");
    assert_eq!(second.routing().borrow().counts(), (1, 2, 1));
    lock.release();
}

#[test]
fn file_that_is_not_a_store_is_refused_with_its_name() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("trunkline.db");
    std::fs::write(
        &path,
        "this is a text file, and long enough to be looked at closely",
    )
    .expect("written");
    let error = open_at(dir.path()).expect_err("not a store").to_string();
    assert!(
        error.contains("trunkline.db") && error.contains("not a database"),
        "{error}"
    );

    let error = open_at(&dir.path().join("missing"))
        .expect_err("no directory")
        .to_string();
    assert!(error.contains("does not exist; create it"), "{error}");
}

#[test]
fn store_of_a_later_release_is_refused() {
    let fixture = Fixture::new();
    fixture.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', 1, x'00', 0)",
    );
    let error = open_at(fixture.dir.path())
        .expect_err("too new")
        .to_string();
    assert!(
        error.contains("schema version 9999 is of a later release"),
        "{error}"
    );
}

#[test]
fn store_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let fixture = Fixture::new();
    let file = std::fs::metadata(fixture.dir.path().join("trunkline.db")).expect("there");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[test]
fn thread_ends_with_the_last_handle() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = StoreOptions::new(dir.path().join("trunkline.db"), "trunkline");
    let (store, thread) = open(options).expect("opened");
    drop(store);
    thread.join();
}

#[test]
fn networks_of_a_trunks_media_are_applied_shown_and_routed() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    let listed = SMALL_SITE.replace(
        "sources =",
        "media_from = [\"198.51.100.0/24\", \"203.0.113.7\"]\nsources =",
    );
    let plan = fixture.applied(&listed).to_string();
    let expected = "~ trunk carrier-1 media_from: (none) -> 198.51.100.0/24 203.0.113.7/32\n";
    assert!(plan.contains(expected), "{plan}");
    assert_eq!(fixture.applied(&listed).changes, []);
    let mut routing = fixture.store.routing();
    let trunk = routing
        .borrow_and_update()
        .trunk_for("192.0.2.1".parse().expect("an address"))
        .map(std::sync::Arc::clone);
    let networks = crate::routing::Origin::Trunk(trunk.expect("it is known")).media_from();
    let networks = networks.expect("two");
    let contains = |ip: &str| networks.contains(ip.parse().expect("an address"));
    assert!(contains("198.51.100.9") && contains("203.0.113.7"));
    assert!(!contains("203.0.113.8"));
    let plan = fixture.applied(SMALL_SITE).to_string();
    assert!(plan.contains("-> (none)\n"), "{plan}");
}

#[test]
fn media_addresses_of_trunks_and_members_are_applied_shown_and_routed() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    let named = with_media("inside", "outside", "::1");
    let plan = fixture.applied(&named).to_string();
    for line in [
        "~ trunk carrier-1 media: (none) -> outside\n",
        "~ member acme/101 media: (none) -> ::1\n",
        "~ member acme/102 media: (none) -> inside\n",
    ] {
        assert!(plan.contains(line), "{plan}");
    }
    assert_eq!(
        fixture.applied(&named).changes,
        [],
        "applied once is applied"
    );
    let mut routing = fixture.store.routing();
    let snapshot = routing.borrow_and_update().clone();
    let names: Vec<_> = snapshot
        .interfaces()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["::1", "inside", "outside"]);
    let trunk = snapshot.trunk_for("192.0.2.1".parse().expect("an address"));
    let origin = crate::routing::Origin::Trunk(trunk.expect("it is known").clone());
    assert_eq!(
        origin.media().map(ToString::to_string).as_deref(),
        Some("outside")
    );
    assert_eq!(fixture.members()[1].media.as_deref(), Some("inside"));
    let plan = fixture.applied(SMALL_SITE).to_string();
    assert_eq!(plan.matches("-> (none)\n").count(), 3, "{plan}");
}

#[test]
fn srtp_of_trunks_and_members_is_applied_shown_and_routed() {
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    let secured = SMALL_SITE
        .replace("sources =", "srtp = \"required\"\nsources =")
        .replace(
            "sip_user = \"ada\"",
            "sip_user = \"ada\"\nsrtp = \"preferred\"",
        );
    let plan = fixture.applied(&secured).to_string();
    assert!(
        plan.contains("~ trunk carrier-1 srtp: off -> required\n"),
        "{plan}"
    );
    assert!(
        plan.contains("~ member acme/101 srtp: off -> preferred\n"),
        "{plan}"
    );
    assert_eq!(
        fixture.applied(&secured).changes,
        [],
        "applied once is applied"
    );
    let mut routing = fixture.store.routing();
    let snapshot = routing.borrow_and_update();
    let trunk = snapshot.trunk_for("192.0.2.1".parse().expect("an address"));
    assert_eq!(trunk.map(|trunk| trunk.srtp), Some(SrtpPolicy::Required));
    let member = snapshot.member_by_sip_user("ada");
    assert_eq!(
        member.map(|member| member.srtp),
        Some(SrtpPolicy::Preferred)
    );
    assert_eq!(fixture.members()[1].srtp, "off");
}

#[test]
fn calls_out_are_applied_shown_and_routed() {
    let outbound = SMALL_SITE
        .replace(
            "name = \"acme\"",
            "name = \"acme\"\noutbound_prefixes = [\"+44\"]\noutbound_calls_per_day = 100",
        )
        .replace(
            "sources =",
            "destinations = [\"192.0.2.1\"]\nuser = \"acme\"\npassword_file = \"opensesame\"\n\
             cps = 5\nsources =",
        )
        .replace("member = \"101\"", "member = \"101\"\nchannels_max = 2")
        + "\n[[route]]\ntenant = \"acme\"\ntrunks = [\"carrier-1\"]\n\
           [[route]]\ntenant = \"acme\"\nprefix = \"+4420\"\ntrunks = [\"carrier-1\"]\n";
    let fixture = Fixture::new();
    fixture.applied(SMALL_SITE);
    let plan = fixture.applied(&outbound);
    let shown = plan.to_string();
    for line in [
        "~ tenant acme outbound_per_day: (none) -> {\"calls\":100,\"minutes\":null}, \
         outbound_prefixes: (none) -> [\"+44\"]",
        "password_file: (none) -> (secret)",
        "~ did +442071838750 channels_max: (none) -> 2",
        "+ route acme/+4420 trunks: carrier-1",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(!shown.contains("opensesame"), "{shown}");
    assert!(fixture.applied(&outbound).changes.is_empty());

    let snapshot = fixture.store.routing().borrow().clone();
    let acme: Name = "acme".parse().expect("a name");
    let number: E164 = "+442071838750".parse().expect("a number");
    assert_eq!(snapshot.did(&number).expect("known").channels_max, Some(2));
    let policy = snapshot.tenant_outbound(&acme).expect("known");
    assert_eq!(policy.daily.calls, Some(100));
    let dialled = Dialled::read(policy, "+442079460000").expect("a number");
    let trunks = snapshot.trunks_for(&acme, &dialled);
    assert_eq!(trunks.len(), 1);
    assert_eq!(trunks[0].settings.cps, 5);
    let login = trunks[0].settings.login.as_ref().expect("stated");
    assert_eq!(login.password.0, "opensesame");
    let help = Dialled::read(policy, "999").expect("help");
    assert_eq!(
        snapshot.trunks_for(&acme, &help).len(),
        1,
        "each trunk once"
    );
    let member = snapshot.member(&acme, &"101".parse().expect("an extension"));
    assert_eq!(member.expect("known").numbers, [number]);

    // The trunk stays while a route needs it, and both go together.
    let plan = fixture.applied(SMALL_SITE);
    assert!(plan.to_string().contains("- route acme/+\n"), "{plan}");
    let snapshot = fixture.store.routing().borrow().clone();
    assert!(snapshot.trunks_for(&acme, &dialled).is_empty());
}

#[test]
fn what_went_out_today_is_counted_from_call_records() {
    let fixture = Fixture::new();
    let call = |id: &str, start_unix_ms, callee: &str, trunk: Option<&str>| CallRecord {
        direction: CallDirection::Outbound,
        tenant: Some("acme".to_owned()),
        caller: "101".to_owned(),
        callee: Some(callee.to_owned()),
        trunk: trunk.map(str::to_owned),
        start_unix_ms,
        duration_ms: 1_500,
        ..record(id, start_unix_ms)
    };
    let records = [
        call("a", 1_000, "+442079460000", Some("out")),
        call("b", 2_000, "+442079460000", Some("out")),
        call("yesterday", 999, "+442079460000", Some("out")),
        call("help", 2_000, "999", Some("out")),
        call("refused", 2_000, "+442079460000", None),
    ];
    let records = records.into_iter().map(DetailRecord::from).collect();
    let mut pending = fixture.store.try_add_records(records).expect("taken");
    while pending.poll().is_none() {
        std::thread::yield_now();
    }
    fixture.runtime.block_on(async {
        let used = fixture.store.outbound_usage(1_000).await.expect("counted");
        assert_eq!(used.len(), 1);
        assert_eq!((used[0].calls, used[0].secs), (2, 4));
        assert_eq!(used[0].member.as_str(), "101");
    });
}
