package leveldb_test

import (
	"fmt"
	"os"

	"svcindex/index"
	"svcindex/stages/leveldb"
)

// A name is put, and found again.
func ExampleOpen() {
	dir, _ := os.MkdirTemp("", "leveldb")
	defer os.RemoveAll(dir)
	db, err := leveldb.Open(leveldb.Options{Path: dir, Sync: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()

	key, _ := index.ParseKey("name:go/src")
	put := &index.Mutation{Op: index.PutName, Key: key, Name: index.NameRecord{CID: index.Sum([]byte("a manifest")), Seq: 1}}
	if err := db.Commit([]*index.Mutation{put}); err != nil || put.Err != nil {
		fmt.Println(err, put.Err)
		return
	}
	j := &index.Job{Ask: index.AskResolve, Key: key}
	fmt.Println(db.Get(j), j.Answer.Name.Seq, j.Answer.From)
	// Output: <nil> 1 db
}
