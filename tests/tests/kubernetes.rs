//! The names of Kubernetes pods, where only the cluster's API server knows them; and that nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tests::container::unused_id;
use tests::kubernetes::ApiServer;
use tests::wait;
use tests::wire::Wire;
use tests::{AgentOptions, Container, ControlGroup, Network, Server, ServerOptions};

#[test]
fn a_pod_has_the_name_that_the_api_server_knows() -> anyhow::Result<()> {
    let api = ApiServer::start()?;
    let (uid, server) = in_a_pod()?;
    api.set_pods(&[[&uid, "payments", "orders-db-0"], [OTHER, "kube-system", "coredns"]])?;
    let agent = AgentOptions::default().server(&server).config(&api.config()).start()?;
    // It begins, perhaps, before the name is known.
    let mut early = Wire::unix(&server)?;
    early.start(&[("user", "postgres")])?;
    wait::until(
        "the API server to be asked",
        wait::SOON,
        || Ok((!api.requests()?.is_empty()).then_some(())),
    )?;
    wait::pause(Duration::from_millis(500));
    server.psql("select 'late'")?;
    early.query("select 'early'")?;
    early.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    record.check_totals()?;
    ensure!(record.sessions.len() == 2, "{:?}", record.sessions);
    for session in &record.sessions {
        ensure!(session.pod_uid.as_deref() == Some(&uid), "{session:?}");
        let names = (session.namespace.as_deref(), session.pod.as_deref());
        ensure!(names == (Some("payments"), Some("orders-db-0")), "{session:?}");
    }
    let [request] = api.requests()?.try_into().map_err(|more| anyhow::anyhow!("{more:?}"))?;
    ensure!(request.path == "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-a", "{request:?}");
    ensure!(request.token.as_deref() == Some("Bearer first token"), "{request:?}");
    Ok(())
}

/// The token is read anew each time; and the API server is asked again, since its list may be older than the pod.
#[test]
fn a_pod_that_is_younger_than_the_list_is_asked_for_again() -> anyhow::Result<()> {
    let api = ApiServer::start()?;
    let (uid, server) = in_a_pod()?;
    let agent = AgentOptions::default().server(&server).config(&api.config()).start()?;
    wait::until(
        "the API server to be asked",
        wait::SOON,
        || Ok((!api.requests()?.is_empty()).then_some(())),
    )?;
    let mut wire = Wire::unix(&server)?;
    wire.start(&[("user", "postgres"), ("application_name", "waiting")])?;
    api.set_token("second token")?;
    api.set_pods(&[[&uid, "payments", "orders-db-0"]])?;
    wait::until("the API server to be asked again", wait::SOON, || {
        let again =
            |request: &tests::kubernetes::Request| request.token.as_deref() == Some("Bearer second token");
        Ok(api.requests()?.iter().any(again).then_some(()))
    })?;
    wait::pause(Duration::from_millis(500));
    wire.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    ensure!(record.session_named("waiting")?.pod.as_deref() == Some("orders-db-0"), "{:?}", record.sessions);
    Ok(())
}

#[test]
fn an_api_server_in_trouble_delays_nothing() -> anyhow::Result<()> {
    let api = ApiServer::start()?;
    let (uid, server) = in_a_pod()?;
    api.set_pods(&[[&uid, "payments", "orders-db-0"]])?;
    for mood in ["slow", "closed", "broken", "garbage", "another token", "another authority"] {
        api.set_mood(mood)?;
        let config = match mood {
            "another authority" => api.config_with_another_authority(),
            // The service account's token is no longer good.
            "another token" => api.config().replace("/token'", "/mood'"),
            _ => api.config(),
        };
        let folder = tempfile::tempdir()?;
        let metrics = folder.path().join("metrics");
        let agent = AgentOptions::default().server(&server).config(&config).metrics_file(&metrics).start()?;
        let asked: Vec<_> = (0..10).map(|number| format!("select '{mood} {number}'")).collect();
        asked.iter().try_for_each(|sql| server.psql(sql).map(drop))?;
        server.wait_idle()?;
        agent.wait_drained()?;
        let finished = agent.stop()?;
        finished.record.check_totals()?;
        ensure!(finished.record.sessions.len() == asked.len(), "{mood}: {:?}", finished.record.sessions);
        for session in &finished.record.sessions {
            let known = (session.pod_uid.as_deref(), &session.pod, session.gap_bytes);
            ensure!(known == (Some(&uid), &None, 0), "{mood}: {session:?}");
        }
        for sql in &asked {
            ensure!(finished.record.statement_with(sql)?.complete, "{mood}: {sql}");
        }
        let metrics = std::fs::read_to_string(&metrics)?;
        ensure!(metrics.contains("\ncapture_unnamed_pod_sessions_total 10\n"), "{mood}: {metrics}");
        // All that was done while the agent still waits for a slow one, for ten seconds.
        let failed = finished.stderr.contains("pods-unknown");
        ensure!(failed == (mood != "slow"), "{mood}: {}", finished.stderr);
    }
    Ok(())
}

#[test]
fn without_a_cluster_the_agent_says_what_is_missing() -> anyhow::Result<()> {
    let server = Server::start()?;
    let refused = AgentOptions::default().server(&server).config("kubernetes = {}").start();
    let words = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(words.contains("kubernetes-unset"), "{words}");
    Ok(())
}

/// A server in a container of a pod, of which this host knows the UID only.
fn in_a_pod() -> anyhow::Result<(String, Server)> {
    let id = unused_id();
    let uid = format!("8dbc1f4e-7b1a-4f0e-9d1c-{}", &id[52..]);
    let group = ControlGroup::new(&format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{id}.scope",
        uid.replace('-', "_")
    ))?;
    let container = Arc::new(Container::new(18, &Network::new()?, Some(group))?);
    Ok((uid, ServerOptions::default().version(18).container(&container).start()?))
}

const OTHER: &str = "5b0ad3a1-0000-4000-8000-00000000beef";
