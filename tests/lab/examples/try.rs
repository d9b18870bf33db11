use landfall_lab::*;
fn main() -> anyhow::Result<()> {
    let lab = Lab::new(
        "dev",
        1,
        Size {
            control_planes: 3,
            workers: 2,
        },
        std::path::Path::new("/work/main/.cache"),
    );
    let a: Vec<String> = std::env::args().collect();
    match a[1].as_str() {
        "up" => {
            lab.up(
                std::path::Path::new("/work/main/target/x86_64-unknown-linux-gnu/release/landfall"),
                std::path::Path::new("/work/main/.cache/landfall.bundle"),
            )?;
            operator::Operator::of(&lab)?.write_cluster(|_| {})?;
        }
        "put" => lab.put(
            std::path::Path::new("/work/main/target/x86_64-unknown-linux-gnu/release/landfall"),
            std::path::Path::new("/work/main/.cache/landfall.bundle"),
        )?,
        "down" => lab.down()?,
        "fp" => {
            let f = fingerprint::Fingerprint::take_all(&lab)?;
            std::fs::write(&a[2], format!("{f:#?}"))?;
            std::thread::sleep(std::time::Duration::from_secs(3));
            let g = fingerprint::Fingerprint::take_all(&lab)?;
            for l in fingerprint::differences(&f, &g) {
                println!("{l}");
            }
        }
        _ => {}
    }
    Ok(())
}
