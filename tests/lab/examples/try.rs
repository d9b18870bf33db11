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
        "fp" => std::fs::write(&a[2], format!("{:#?}", fingerprint::Fingerprint::take_all(&lab)?))?,
        "scenario" => {
            for c in scenario::run(
                std::path::Path::new("/work/main/target/x86_64-unknown-linux-gnu/release/landfall"),
                std::path::Path::new("/work/main/.cache/landfall.bundle"),
                std::path::Path::new("/work/main/.cache"),
            )? {
                println!("{} {:?}", c.name, c.failure);
            }
        }
        _ => {}
    }
    Ok(())
}
