"""What reproduce prints while a notebook trains."""

import time

from imder_lib.runs.notebook import newest_epochs, progress_shown

HEAD = "stage,epoch,train,valid,lr,kept,seconds\n"


def test_the_newest_epoch_of_each_training_is_a_line(tmp_path):
    path = tmp_path / "digits" / "seed1" / "kit" / "history.csv"
    assert newest_epochs(tmp_path) == []
    path.parent.mkdir(parents=True)
    path.write_text(HEAD + "diffusion,1,1.0,0.9,0.004,True,2.5\n")
    assert newest_epochs(tmp_path) == ["  digits/seed1/kit: diffusion epoch 1, valid 0.9000, 2.5 s"]
    for unread in ("", HEAD):  # a file that cannot be read yet, or has no epoch
        path.write_text(unread)
        assert newest_epochs(tmp_path) == []


def test_epochs_are_printed_once_and_those_of_before_are_not_repeated(tmp_path, capsys):
    path = tmp_path / "history.csv"
    path.write_text(HEAD + "fusion,1,1.0,0.9,0.004,True,2.5\n")
    with progress_shown(tmp_path, every=0.02):
        time.sleep(0.2)
        assert "fusion" not in capsys.readouterr().out
        path.write_text(HEAD + "fusion,1,1.0,0.9,0.004,True,2.5\nfusion,2,0.8,0.7,0.004,True,2.4\n")
        time.sleep(0.5)
    assert capsys.readouterr().out.count("fusion epoch 2, valid 0.7000") == 1
