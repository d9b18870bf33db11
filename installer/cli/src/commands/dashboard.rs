//! `dashboard`.

use super::CommandResult;
use crate::args::Common;
use crate::load;
use crate::output::write_stdout;
use crate::start::{Started, start};
use landfall_core::explain::ExitCode;
use landfall_engine::run::{self, DashboardAccess};

/// Prints the dashboard's addresses and login. No other command prints the password.
pub fn dashboard(common: &Common) -> CommandResult {
    let understood = load::read(&common.inventory, common.limit.as_deref())?;
    let Started { desired, reporter, ctx } = start(common, understood, None)?;
    let outcome = run::dashboard(&desired, &ctx);
    let exit = reporter.close(vec![]);
    if let (ExitCode::Done, Some(access)) = (exit, &outcome.dashboard) {
        write_stdout(&text(access));
    }
    Ok(exit)
}

fn text(access: &DashboardAccess) -> String {
    let mut text: String = access
        .addresses
        .iter()
        .map(|address| format!("address   {address}\n"))
        .collect();
    text += &format!("host      http://{}/  (a name that leads to any node)\n", access.host);
    match &access.login {
        Some(login) => {
            let password = String::from_utf8_lossy(login.password.expose());
            text += &format!("user      {}\npassword  {password}\n", login.user);
        }
        None => text += "user      none is asked for (ingress.dashboardAuth: none)\n",
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::secret::Secret;
    use landfall_engine::dashboard::Login;

    #[test]
    fn addresses_and_login_are_printed() {
        let mut access = DashboardAccess {
            addresses: vec!["http://10.9.0.1:8080/".to_owned(), "http://10.9.0.2:8080/".to_owned()],
            host: "ui.landfall.local".to_owned(),
            login: Some(Login {
                user: "landfall".to_owned(),
                password: Secret::new("hunter2"),
            }),
        };
        assert_eq!(
            text(&access),
            "address   http://10.9.0.1:8080/\naddress   http://10.9.0.2:8080/\n\
             host      http://ui.landfall.local/  (a name that leads to any node)\n\
             user      landfall\npassword  hunter2\n"
        );
        assert!(!format!("{access:?}").contains("hunter2"));
        access.login = None;
        assert!(text(&access).ends_with("(ingress.dashboardAuth: none)\n"));
    }
}
