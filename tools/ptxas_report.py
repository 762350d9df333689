# Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
"""Tables what ``nvcc -Xptxas -v`` said of the CUDA kernels.

For each kernel and architecture: registers a thread and bytes of shared memory
a block, which bound how many blocks run side by side, and bytes of registers
that spill to memory. Any of these is an error.

    python tools/ptxas_report.py build/cuda-check/*/cuda/*.ptxas
"""

import re
import subprocess
import sys
from pathlib import Path

ENTRY = 'Compiling entry function'
KERNEL = re.compile(
    rf"{ENTRY} '(\w+)' for '(\w+)'\n"
    r'.*Function properties for \1\n'
    r'.* (\d+) bytes spill stores, (\d+) bytes spill loads\n'
    r'.*Used (\d+) registers(?:.* (\d+) bytes smem)?'
)


def demangled(names):
    """Without what all kernels share: namespace, result, arguments."""
    found = subprocess.run(
        ['c++filt'],
        input='\n'.join(names),
        capture_output=True,
        check=True,
        text=True,
    )
    return [
        re.sub(r'^void |mmsapa::cuda::|\(.*', '', line)
        for line in found.stdout.splitlines()
    ]


def main():
    text = ''.join(Path(path).read_text() for path in sys.argv[1:])
    found = KERNEL.findall(text)
    if len(found) != text.count(ENTRY):
        sys.exit('ptxas_report: cannot read what ptxas said')
    table, spilled = {}, []
    names = demangled([name for name, *_ in found])
    for name, (_, arch, *numbers) in zip(names, found):
        stores, loads, registers, shared = (int(n or 0) for n in numbers)
        spills = stores + loads
        cells = f'{registers:9} {spills:6} {shared:6}'
        table.setdefault(name, {})[arch] = cells
        if spills:
            spilled.append(f'{name} on {arch}')

    archs = sorted({arch for row in table.values() for arch in row})
    width = max(map(len, table), default=0)
    head = 'registers spills shared'
    print(' ' * width, *(f'{arch:>{len(head)}}' for arch in archs))
    print(' ' * width, *[head] * len(archs))
    for name, row in sorted(table.items()):
        print(f'{name:{width}}', *(row[arch] for arch in archs))
    if spilled:
        sys.exit('ptxas_report: registers spill\n' + '\n'.join(spilled))


if __name__ == '__main__':
    main()
