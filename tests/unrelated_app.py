"""A Hydra application that has nothing to do with us; it must not see our configs."""

import hydra


@hydra.main(config_path=None, version_base="1.2")
def main(config):
    print(config)


if __name__ == "__main__":
    main()
