"""Entry of the supervisor process. Kept tiny: a script is compiled at each start, the modules it imports are not."""

import os
import sys

# At the end: this folder holds modules of pipesmith, whose names must not hide those of the standard library.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

if __name__ == "__main__":
    from launcher.serve import main  # type: ignore[import-not-found]

    main(int(sys.argv[1]))
