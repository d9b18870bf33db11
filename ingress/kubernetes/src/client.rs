//! The way to the Kubernetes API.

/// The service account's client; a kubeconfig only when one is named, for running outside a cluster.
///
/// A static glibc program cannot look up names or users, so neither `kubernetes.default.svc` nor a home directory is asked for.
pub async fn client() -> Result<kube::Client, String> {
    let config = if std::env::var_os("KUBECONFIG").is_some() {
        kube::Config::infer().await.map_err(|error| error.to_string())
    } else {
        kube::Config::incluster().map_err(|error| error.to_string())
    };
    let client = config.and_then(|config| kube::Client::try_from(config).map_err(|error| error.to_string()));
    client.map_err(|error| format!("no way to the Kubernetes API: {error}"))
}
