"""The only package that prints: tables and verdicts for people, JSON for scripts.

Results go to standard output, progress and notes to standard error, so that ``--json`` leaves one
document and nothing else on standard output.
"""

from __future__ import annotations

from surgeon.console.evaluations import show_evaluation as show_evaluation
from surgeon.console.printing import print_error as print_error
from surgeon.console.printing import print_heading as print_heading
from surgeon.console.printing import print_json as print_json
from surgeon.console.printing import print_note as print_note
from surgeon.console.printing import print_text as print_text
from surgeon.console.printing import show_log as show_log
from surgeon.console.printing import shown_progress as shown_progress
from surgeon.console.rankings import show_agreement as show_agreement
from surgeon.console.rankings import show_ranking as show_ranking
from surgeon.console.rankings import show_weakness as show_weakness
from surgeon.console.studies import show_atlas as show_atlas
from surgeon.console.studies import show_checked_recipes as show_checked_recipes
from surgeon.console.studies import show_grid as show_grid
from surgeon.console.studies import show_outlook as show_outlook
from surgeon.console.studies import show_problems as show_problems
from surgeon.console.studies import show_recipes as show_recipes
from surgeon.console.studies import show_sweep as show_sweep
from surgeon.console.studies import show_trace as show_trace
from surgeon.console.surgeries import show_comparison as show_comparison
from surgeon.console.surgeries import show_exported as show_exported
from surgeon.console.surgeries import show_inferred as show_inferred
from surgeon.console.surgeries import show_plan as show_plan
from surgeon.console.surgeries import show_pushed as show_pushed
from surgeon.console.surgeries import show_record as show_record
from surgeon.console.surgeries import show_restored as show_restored
from surgeon.console.surgeries import show_small_patch as show_small_patch
from surgeon.console.surgeries import show_verification as show_verification
