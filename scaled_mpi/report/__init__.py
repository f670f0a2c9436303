"""The report: one self-contained HTML page, pictures first.

    write_report(folder, title, facts, events=..., pictures=[Pictures(...)], config_text=...)

Numbers come only from facts, pictures only from fields. A section whose facts are missing is left
out, so the same call serves a job of any kind, finished or still running. matplotlib and Pillow
are imported while a page is written, never by importing this package.

What the page reads (the contract with `evaluate`). A fact is a dict with `name`, `value`, `unit`,
`stage`, `ranks` and its *places* (`series.PLACES`; other keys are only shown). Where one name and
place was recorded twice the last one counts. `method` is a key of `palette.METHODS`: surrogate,
halo8, plain, nosweep, persistence, linear, quadratic, simulator_half_grid, simulator_large_step,
simulator. `lead` counts jumps from 1.

Series, one fact a point:

| name           | places                   | value                                               |
|----------------|--------------------------|-----------------------------------------------------|
| vrmse.lead     | method, lead [, channel] | VRMSE; without `channel` the mean over channels     |
| mae.lead       | method, lead [, channel] | mean absolute error                                 |
| vrmse.window   | method, window           | VRMSE over a window of leads such as "6:12"         |
| spectrum       | method, lead, k          | radial power, k in cycles a cell; the truth's is    |
|                |                          | method = "simulator"                                |
| spectrum.error | method, lead, band       | relative error; band "large", "middle", "small"     |
| seam.lead      | method, lead             | seam index; the truth's is method = "simulator"     |
| sweeps.jump    | jump                     | sweeps that this jump took                          |
| mismatch       | jump, sweep              | interface mismatch after this sweep                 |
| time.jump      | method                   | seconds a jump, whole domain                        |
| time.STAGE...  |                          | seconds of the fact's own stage, such as            |
|                |                          | time.fit or time.simulate.training: one bar each    |

| spread.skill.  | method, lead [, channel] | spread of an ensemble over the error of its mean    |
| lead           |                          |                                                     |
| crps.lead      | method, lead             | fair CRPS; mae.lead is that of a single forecast    |
| rank.histogram | method, lead, bin        | how often `bin` members are below the truth, 1 =    |
|                |                          | as often as any other number                        |
| coverage       | method, lead, level      | share inside a central interval, beside `expected`  |
| energy.score.  | method, lead             | of patches across tile edges (.borders) and inside  |
| borders        |                          | tiles (.inside)                                     |

Single numbers: `vrmse.jump1.METHOD`, `vrmse.jump10.METHOD`, `vrmse.mean.METHOD`,
`vrmse.median.METHOD`, `frames.stationary`, `seam.index`, `sweeps.mean`, `sweeps.max`,
`mismatch.tolerance`, `halo.messages`, `halo.messages.formula`, `halo.bytes.counted`,
`halo.bytes.formula`, `halo.messages.tiles`, `halo.bytes.tiles` (as if each tile were a rank),
`halo.exchanges`,
`time.surrogate.jump`, `time.simulator.jump`, `time.data`, `time.train`, `breakeven` (a count of
jumps; infinite = never), `field.sha256`, `spread.skill.leadN`, `crps`, `mae.METHOD`, the
numbers of a compressor (`pipeline/rates.py`). Any other fact appears in the table.
"""

from scaled_mpi.report.page import write_report
from scaled_mpi.report.pictures import Pictures

__all__ = ["Pictures", "write_report"]
